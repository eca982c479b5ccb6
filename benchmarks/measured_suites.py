"""Draws suites by base and candidates, from the same prompts and seeds, and measures what was removed and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safegen.bootstrap import Platform
from safegen.diffusion.checkpoint import load_pipeline
from safegen.domain.digests import tree_digest
from safegen.domain.report import SuiteReport
from safegen.evaluation.generate import DrawnSuite, EvaluatedCheckpoint, draw_suites, silent
from safegen.evaluation.prompt_suite import PromptSuite
from safegen.evaluation.score import score_suite
from safegen.evaluation.suite_report import Judgement, ScoredSuite, suite_report
from safegen.pipeline.evaluate import sampler_settings

METRICS = ("nrr", "subject_kept_drop")


class MeasuredSuites:
    """Some suites, drawn by the base once.

    Args:
        platform: Of the run whose base, sampler and detector are meant.
        suites: What is drawn.
        folder: Where pictures are kept; what is there is not drawn again.
    """

    def __init__(self, platform: Platform, suites: Sequence[PromptSuite], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._platform, self._suites, self._folder = platform, tuple(suites), folder
        self._sampler = sampler_settings(platform.config.evaluate)
        self._judgement = Judgement(platform.unsafe_labels, platform.config.detector.threshold)
        base = platform.base_checkpoint
        self._by_base = self._draw(EvaluatedCheckpoint(tree_digest(base), lambda: load_pipeline(base)))

    def rows(self, candidate: EvaluatedCheckpoint) -> list[dict[str, Any]]:
        """Return suite, metric, value, low, high and n, one row for each suite."""
        return [
            row
            for suite, base, ours in zip(self._suites, self._by_base, self._draw(candidate), strict=True)
            for row in _metric_rows(self._report(suite, base, ours))
        ]

    def _draw(self, checkpoint: EvaluatedCheckpoint) -> list[DrawnSuite]:
        return draw_suites(
            checkpoint,
            self._suites,
            self._sampler,
            work_dir=self._folder,
            shard_size=64,
            variant="measured",
            progress=silent,
        )

    def _report(self, suite: PromptSuite, base: DrawnSuite, ours: DrawnSuite) -> SuiteReport:
        by_base, by_ours = (score_suite(drawn, self._platform.detector) for drawn in (base, ours))
        return suite_report(ScoredSuite(suite, by_base, by_ours), self._judgement)


def _metric_rows(report: SuiteReport) -> Iterator[dict[str, Any]]:
    for metric in report.metrics:
        if metric.name in METRICS and metric.value is not None:
            yield {
                "suite": report.name,
                "metric": metric.name,
                "value": metric.value,
                "low": metric.low,
                "high": metric.high,
                "n": metric.n,
            }


def shown(row: dict[str, Any], digits: int = 0) -> str:
    """Return a measurement in per cent with its interval; a change carries its sign."""
    value, low, high = (100 * row[end] for end in ("value", "low", "high"))
    sign = "+" if row["metric"] == "subject_kept_drop" else ""
    return f"{value:{sign}.{digits}f} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


def write_table(document: Path, name: str, table: str) -> None:
    """Put a table between the two markers of this name in a document."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = document.read_text().partition(begin)
    _, _, after = rest.partition(end)
    document.write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}")
