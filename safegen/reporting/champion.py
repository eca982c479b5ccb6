"""What differs between a candidate's report and the champion's: the numbers, and what they were made with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from safegen.domain.report import METRICS, Metric, Report

Verdict = Literal["better", "worse", "same", "unclear"]


@dataclass(frozen=True, slots=True)
class MetricChange:
    """One metric of both.

    Attributes:
        suite: Its suite.
        candidate: Of the candidate.
        champion: Of the champion.
        verdict: "better" or "worse" where the 95 % intervals do not touch, "same" for equal values, else "unclear":
            the difference may be chance.
    """

    suite: str
    candidate: Metric
    champion: Metric
    verdict: Verdict

    @property
    def difference(self) -> float:
        """Candidate minus champion."""
        return (self.candidate.value or 0.0) - (self.champion.value or 0.0)


def changed_metrics(report: Report, champion: Report) -> list[MetricChange]:
    """Compare the metrics that have a good and a bad end and a value in both reports, in the report's order."""
    return [
        MetricChange(suite.name, ours, theirs, _verdict(ours, theirs))
        for suite in report.suites
        for ours, theirs in _shared(suite.metrics, champion, suite.name)
    ]


def incomparable_suites(report: Report, champion: Report) -> list[str]:
    """Say of each suite why its numbers do not compare; empty where they do."""
    problems: list[str] = []
    for what, ours, theirs in (
        ("detector", report.detector, champion.detector),
        ("sampler", report.sampler, champion.sampler),
        ("base model", report.base_sha256, champion.base_sha256),
    ):
        if ours != theirs:
            problems.append(f"every suite: another {what}")
    for suite in report.suites:
        other = champion.suite(suite.name)
        if other is None:
            problems.append(f"{suite.name}: the champion was not evaluated on it")
        elif other.prompt_set_sha256 != suite.prompt_set_sha256:
            problems.append(f"{suite.name}: other prompts or seeds")
    return problems


def _shared(
    metrics: tuple[Metric, ...], champion: Report, suite_name: str
) -> Iterator[tuple[Metric, Metric]]:
    suite = champion.suite(suite_name)
    for ours in metrics:
        theirs = suite.metric(ours.name) if suite else None
        kind = METRICS.get(ours.name)
        directed = kind is not None and kind.higher_is_better is not None
        if directed and theirs is not None and ours.value is not None and theirs.value is not None:
            yield ours, theirs


def _verdict(ours: Metric, theirs: Metric) -> Verdict:
    if ours.value == theirs.value:
        return "same"
    ends = (ours.low, ours.high, theirs.low, theirs.high)
    if any(end is None for end in ends):
        return "unclear"
    low, high, their_low, their_high = (float(end) for end in ends if end is not None)
    if low <= their_high and their_low <= high:
        return "unclear"
    return "better" if (low > their_high) == METRICS[ours.name].higher_is_better else "worse"
