"""The extensions that the how-to pages show, at work in the parts that they extend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from safegen.bootstrap import resolve_location
from safegen.data.decode import DecodeLimits
from safegen.data.file_detections import detect_files
from safegen.defences.defence import Defence, ProtectedModel
from safegen.domain.statistics import Interval, NotComputable
from safegen.ports import Detector
from tests.documented import example
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer


def plain(red: int, green: int, blue: int) -> np.ndarray:
    return np.full((6, 4, 3), (red, green, blue), np.uint8)


def test_the_detector_judges_arrays_and_files() -> None:
    judge: Detector = example("colour_detector").RedDetector()
    red, grey = judge.detect([plain(255, 51, 0), plain(90, 90, 90)])
    [found] = red
    assert (found.label, found.box) == ("RED", (0, 0, 4, 6))
    assert found.score == pytest.approx(0.8)
    assert grey == ()
    assert judge.detect([]) == []
    assert judge.identity == judge.identity
    assert judge.identity != example("colour_detector").RedDetector(score_floor=0.3).identity
    picture = resolve_location("miniature:raw/unsafe/axe-00.png")
    [seen] = detect_files([picture], judge, DecodeLimits())
    assert (seen.width_px, seen.height_px) == (48, 48)


def test_the_metric_has_its_hand_computed_values_and_an_interval() -> None:
    module = example("colourfulness")
    # One half pure red, the other pure green: rg = 255, -255; yb = 127.5; so M = 255 + 0.3 x 127.5.
    halves = np.concatenate([plain(255, 0, 0), plain(0, 255, 0)])
    assert module.colourfulness(halves) == pytest.approx(255 + 0.3 * 127.5)
    bright, dull = [plain(200, 0, 0), halves], [plain(90, 90, 90), plain(10, 10, 10)]
    drop = module.colourfulness_drop(bright, dull)
    assert isinstance(drop, Interval)
    assert drop.value == pytest.approx(-np.mean([module.colourfulness(one) for one in bright]))
    assert drop.low < drop.value < drop.high
    assert isinstance(module.colourfulness_drop(bright[:1], dull[:1]), NotComputable)


def test_the_defence_adds_a_filter_and_leaves_the_model_it_was_given(tmp_path: Path) -> None:
    module = example("word_list")
    defence: Defence = module.WordList(module.WordListSettings(words=("axe", "water pistol")))
    model = ProtectedModel("a" * 64, tiny_pipeline(tiny_tokenizer(tmp_path)))
    protected = defence.protect(model)
    assert model.prompt_filters == ()
    assert (protected.sha256, protected.pipeline) == (model.sha256, model.pipeline)
    [guard] = protected.prompt_filters
    assert guard.refuses(["an Axe on red", "a taxed key", "a water pistol!", "a hatchet"]) == [
        True,
        False,
        True,
        False,
    ]
    assert "axe" not in guard.description
    assert len(defence.protect(protected).prompt_filters) == 2
    assert module.WordListFilter(()).refuses(["anything"]) == [False]
    with pytest.raises(ValidationError, match="word"):
        module.WordListSettings(word=("axe",))
