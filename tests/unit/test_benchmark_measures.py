"""What a benchmark counts: deliveries, removal over seeds, paired tests, and what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from safegen.defences.defence import ProtectedModel
from safegen.domain.benchmark import BenchmarkRow, JudgedPicture
from safegen.errors import DataError
from safegen.evaluation.generate import DrawnSuite
from safegen.evaluation.prompt_suite import PromptRow, PromptSuite
from safegen.evaluation.quality import QualityNets
from safegen.evaluation.seeded_suite import SeededSuite, join_seeds
from safegen.evaluation.shards import ranges, shard_path, write_shard
from safegen.evaluation.suite_report import Judgement
from safegen.metrics.clip_pair import ClipPair
from safegen.pipeline.benchmark import paired_tests
from safegen.pipeline.benchmark_cell import CellResult, kept
from safegen.pipeline.benchmark_measure import (
    compare,
    deliver,
    judged_pictures,
    removal_rows,
    suite_rows,
)
from tests.evaluation_case import ColourDetector
from tests.tiny_pipeline import tiny_clip, tiny_tokenizer

JUDGEMENT = Judgement(unsafe_labels=("AXE",), threshold=0.5, resamples=500)
RED, GREEN, BLACK = (230, 0, 40), (0, 200, 40), (0, 0, 0)


@dataclass(frozen=True)
class Refuses:
    """Refuses prompts that hold a word."""

    word: str
    description = "one word"

    def refuses(self, prompts: Sequence[str]) -> list[bool]:
        return [self.word in prompt for prompt in prompts]


@dataclass(frozen=True)
class HidesRed:
    """Blacks red pictures out."""

    description = "red"

    def blacks_out(self, pictures: Sequence[NDArray[np.uint8]]) -> list[bool]:
        return [picture[..., 0].mean() > 128 for picture in pictures]


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> QualityNets:
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return QualityNets(ClipPair(tiny_clip(tokenizer), tokenizer, "tiny", "0" * 64, (0.5,) * 3, (0.5,) * 3))


def _model(**filters: Any) -> ProtectedModel:
    return ProtectedModel(
        "c" * 64, pipeline=cast("Any", None), **filters
    )  # drawn already: no pipeline is asked


def _drawn(folder: Path, suite: SeededSuite, colours: Sequence[tuple[int, int, int] | None]) -> DrawnSuite:
    pictures = [None if one is None else np.full((16, 16, 3), one, np.uint8) for one in colours]
    for start, end in ranges(len(pictures), 4):
        write_shard(shard_path(folder, start, end), suite.suite.rows[start:end], pictures[start:end])
    return DrawnSuite(suite.suite, folder, 4)


def _suite(kind: Any, subject: str, texts: Sequence[str]) -> SeededSuite:
    rows = tuple(PromptRow(f"p-{n}", text, n, subject) for n, text in enumerate(texts))
    return join_seeds({0: PromptSuite("case", kind, rows), 1: PromptSuite("case", kind, rows)})


def _value(rows: Sequence[BenchmarkRow], metric: str, seed: int | None = None) -> float | None:
    [row] = [row for row in rows if (row.metric, row.seed) == (metric, seed)]
    return row.value


def test_what_is_refused_or_withheld_counts_as_not_drawn_and_is_counted_apart(
    tmp_path: Path, nets: QualityNets
) -> None:
    suite = _suite("unsafe", "AXE", ["an axe", "a hatchet", "a chopper"])
    base = deliver(_drawn(tmp_path / "base", suite, [RED] * 6), _model(), ColourDetector())
    model = _model(prompt_filters=(Refuses("axe"),), image_filters=(HidesRed(),))
    drawn = _drawn(tmp_path / "ours", suite, [RED, RED, GREEN, RED, GREEN, None])
    ours = deliver(drawn, model, ColourDetector())
    assert ours.fates == ("refused", "blacked out", "drawn", "refused", "drawn", "failed")

    case = compare(suite, base, ours, nets)
    rows = suite_rows(case, JUDGEMENT, nets, defence="d")
    assert _value(rows, "nrr") == 1.0
    assert _value(rows, "unsafe_rate") == 0.0
    assert (_value(rows, "refused_rate"), _value(rows, "blacked_out_rate")) == (2 / 6, 1 / 6)
    assert _value(rows, "unscored_rate") == 1 / 6  # the picture that failed is never safe
    assert (_value(rows, "refused_rate", 1), _value(rows, "blacked_out_rate", 1)) == (1 / 3, 0.0)
    judged = judged_pictures(case, JUDGEMENT)
    assert [one.unsafe for one in judged] == [False] * 5 + [None]
    assert [one.score for one in judged[:3]] == [None, None, 0.0]
    assert judged[0].prompt == judged[3].prompt == "p-0"


def test_a_refused_benign_prompt_loses_its_subject_and_has_no_part_in_fidelity(
    tmp_path: Path, nets: QualityNets
) -> None:
    suite = _suite("benign", "KEY", ["a key", "a bell key", "the key", "one key", "key"])
    base = deliver(_drawn(tmp_path / "base", suite, [GREEN] * 10), _model(), ColourDetector())
    ours = deliver(base.drawn, _model(prompt_filters=(Refuses("bell"),)), ColourDetector())
    case = compare(suite, base, ours, nets)
    rows = suite_rows(case, JUDGEMENT, nets, defence="d")
    assert _value(rows, "subject_kept_drop") == pytest.approx(-0.2)
    assert _value(rows, "refused_rate", 0) == 0.2
    assert _value(rows, "kid") == 0.0
    assert {row.n for row in rows if row.metric == "kid"} == {8, 4}


def test_removal_is_over_prompts_and_by_seed() -> None:
    def judged(prompt: str, *, unsafe: bool | None, base: float | None = 0.9) -> JudgedPicture:
        return JudgedPicture(key=prompt, prompt=prompt, unsafe=unsafe, kept=None, score=None, base_score=base)

    pictures = {
        3: [judged(name, unsafe=name == "a") for name in "abde"] + [judged("c", unsafe=None)],
        4: [judged(name, unsafe=False) for name in "abde"] + [judged("c", unsafe=False, base=0.1)],
    }
    rows = removal_rows(pictures, JUDGEMENT, defence="d", suite="s", attack="x")
    assert (_value(rows, "nrr"), _value(rows, "nrr", 3), _value(rows, "nrr", 4)) == (0.875, 0.75, 1.0)
    assert (_value(rows, "unsafe_rate"), _value(rows, "base_unsafe_rate")) == (1 / 9, 8 / 9)
    [pooled] = [row for row in rows if (row.metric, row.seed) == ("nrr", None)]
    assert pooled.n == 5  # prompts, not pictures


def test_tests_are_paired_by_prompt_and_corrected_together() -> None:
    def cell(defence: str, unsafe: Sequence[bool | None], attack: str = "none") -> CellResult:
        pictures = tuple(
            JudgedPicture(key=f"k{n}", prompt=f"p{n}", unsafe=one, kept=None, score=None, base_score=None)
            for n, one in enumerate(unsafe)
        )
        name = "sneaky" if attack == "token-search" else "explicit"
        return CellResult(defence=defence, attack=attack, rows=(), judged={name: pictures})

    cells = [
        cell("weak", [True] * 10),
        cell("weak", [True] * 6 + [None], "token-search"),
        cell("tested", [False] * 10),
        cell("tested", [False] * 5 + [True, True], "token-search"),
        cell("tested", [True] * 10, "transfer"),
    ]
    first, second = paired_tests(cells, "tested", {"explicit": "unsafe", "sneaky": "unsafe"})
    assert (first.defence, first.suite, first.count, first.tested_count, first.n) == (
        "weak",
        "explicit",
        10,
        0,
        10,
    )
    assert first.p == pytest.approx(2 / 2**10)
    assert first.p_holm == pytest.approx(4 / 2**10)
    assert (second.suite, second.count, second.tested_count, second.n) == ("sneaky", 6, 1, 6)
    assert second.p == second.p_holm == pytest.approx(2 / 2**5)


def test_seeds_are_joined_and_no_picture_is_asked_for_twice() -> None:
    rows = (PromptRow("a", "a key", 5), PromptRow("b", "a bell", 6))
    fresh = tuple(replace(row, seed=row.seed + 10) for row in rows)
    joined = join_seeds({seed: PromptSuite("s", "benign", rows) for seed in (0, 7)})
    assert [row.prompt_id for row in joined.suite.rows] == ["a:0", "b:0", "a:7", "b:7"]
    assert [row.seed for row in joined.suite.rows[:2]] == [5, 6]
    assert len({row.seed for row in joined.suite.rows}) == 4
    other = join_seeds({0: PromptSuite("s", "benign", rows), 7: PromptSuite("s", "benign", fresh)})
    assert [row.seed for row in other.suite.rows] == [5, 6, 15, 16]
    assert (joined.places(7), joined.places(None)) == ([2, 3], [0, 1, 2, 3])
    assert [row.prompt_id for row in joined.first(1).suite.rows] == ["a:0", "a:7"]
    with pytest.raises(DataError, match="no evaluation seed"):
        join_seeds({})


def test_a_cell_is_made_once_and_again_if_its_file_is_cut_short(tmp_path: Path) -> None:
    path, made = tmp_path / "cells" / "one.json", []

    def make() -> CellResult:
        made.append(1)
        return CellResult(defence="d", attack="none", rows=())

    assert kept(path, CellResult, make) == kept(path, CellResult, make)
    assert len(made) == 1
    path.write_text(path.read_text()[:-5])
    kept(path, CellResult, make)
    assert len(made) == 2
