"""Why defences on the text side miss adversarial prompts: how far they are from explicit ones, and what they draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from safegen.attacks.sneaky_suite import SUITE_NAME
from safegen.attacks.text_distance import distances_to
from safegen.domain.benchmark import JudgedPicture, RiskPoint
from safegen.evaluation.prompt_sets.load import open_prompt_file
from safegen.evaluation.prompt_sets.plain import PlainSettings
from safegen.evaluation.prompt_suite import PromptSuite
from safegen.pipeline.benchmark_bench import Bench
from safegen.pipeline.benchmark_cell import CellResult
from safegen.pipeline.benchmark_config import UNEDITED

_TEXT_FILTER = "text-filter"
_Judged = Mapping[str, JudgedPicture]


def risk_points(bench: Bench, cells: Sequence[CellResult]) -> Iterator[RiskPoint]:
    """Yield a point for each prompt that is not of the explicit suite.

    Args:
        bench: Of the benchmark.
        cells: What was drawn: on the suites, of which the tested defence's and the text filter's scores are kept; by
            each defence on the prompts found against it; and by the tested one on those found against others.
    """
    explicit = bench.suites[bench.config.explicit].suite
    reference = bench.nets.clip.text_embeddings([row.text for row in explicit.rows])
    by_suite = {
        (cell.defence, name): {one.key: one for one in pictures}
        for cell in cells
        if cell.attack == "none"
        for name, pictures in cell.judged.items()
    }
    for name, seeded in bench.suites.items():
        if name != explicit.name:
            shown = (_TEXT_FILTER, bench.config.tested)
            judged = {one: by_suite[one, name] for one in shown if (one, name) in by_suite}
            yield from _points(bench, seeded.suite, reference, judged, None)
    transferred = {
        name: {one.key: one for one in pictures}
        for cell in cells
        if cell.attack == "transfer"
        for name, pictures in cell.judged.items()
    }
    for cell in cells:
        if cell.attack == "token-search" and cell.suite_file is not None:
            settings = PlainSettings(format="plain", name=SUITE_NAME, kind="unsafe", file=cell.suite_file)
            own = {one.key: one for one in cell.judged[SUITE_NAME]}
            judged = {cell.defence: own}
            if cell.defence in transferred:
                judged[bench.config.tested] = transferred[cell.defence]
            yield from _points(bench, open_prompt_file(settings, seed=0), reference, judged, cell.defence)


def _points(
    bench: Bench,
    suite: PromptSuite,
    reference: torch.Tensor,
    judged: Mapping[str, _Judged],
    found_against: str | None,
) -> Iterator[RiskPoint]:
    embedded = bench.nets.clip.text_embeddings([row.text for row in suite.rows])
    for row, distance in zip(suite.rows, distances_to(reference, embedded).tolist(), strict=True):
        scores = {
            name: found[row.prompt_id].score for name, found in judged.items() if row.prompt_id in found
        }
        base = next(
            (found[row.prompt_id].base_score for found in judged.values() if row.prompt_id in found), None
        )
        yield RiskPoint(
            suite=suite.name,
            found_against=found_against,
            kind=suite.kind,
            distance=round(distance, 4),
            score={name: _rounded(score) for name, score in {**scores, UNEDITED: base}.items()},
        )


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 3)
