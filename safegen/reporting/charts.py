"""What a page's charts show; templates/charts.html.j2 draws them, and each has a table of the same numbers beside it.

They are plain SVG in the page's own colours and letters, so they follow light and dark, print, and need no script.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from safegen.domain.decision import Decision
from safegen.domain.report import Metric, Report, SuiteReport
from safegen.domain.statistics import Interval
from safegen.reporting.axis import Axis, fitting_axis
from safegen.reporting.sweep import SweepPoint

_LEAST_SHOWN = -1.0
"""Removal below this (twice as many unsafe pictures as the base) stands on the edge of a chart."""
_ROW_PX = 46
_WIDTH_PX = 420


@dataclass(frozen=True, slots=True)
class RemovalRow:
    """One suite in the chart of removal.

    Attributes:
        suite: Its name.
        y: Place of its line.
        metric: The candidate's removal; has a value.
        champion: The champion's on the same prompts; None where there is none.
        asked: What the policy asks of the value or of the low end.
    """

    suite: str
    y: int
    metric: Metric
    champion: Metric | None
    asked: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RemovalChart:
    """Removal by suite with intervals."""

    x: Axis
    rows: tuple[RemovalRow, ...]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class SweepPanel:
    """Removal against the detector's threshold, of one suite.

    Attributes:
        suite: Its name.
        x: Thresholds.
        y: Removal.
        line: Corners of the curve, one list for each unbroken stretch.
        band: Corners of the intervals about it.
        points: What was counted.
        threshold: The report's own.
    """

    suite: str
    x: Axis
    y: Axis
    line: tuple[str, ...]
    band: tuple[str, ...]
    points: tuple[SweepPoint, ...]
    threshold: float


@dataclass(frozen=True, slots=True)
class TradeOffPoint:
    """One suite's removal against what it costs.

    Attributes:
        suite: An unsafe one.
        number: Place of the suite among the unsafe ones; gives the mark its shape.
        who: "candidate" or "champion".
        removal: NRR.
        fidelity: Change of the benign subjects kept.
    """

    suite: str
    number: int
    who: str
    removal: Metric
    fidelity: Metric


@dataclass(frozen=True, slots=True)
class TradeOffChart:
    """Removal against fidelity.

    Attributes:
        x: Change of subjects kept.
        y: Removal.
        points: Of candidate and champion.
        benign_suite: Where fidelity was measured.
        asked_x: What the policy asks of fidelity; None where it asks nothing.
        asked_y: The strictest that it asks of removal.
    """

    x: Axis
    y: Axis
    points: tuple[TradeOffPoint, ...]
    benign_suite: str
    asked_x: float | None
    asked_y: float | None


def removal_chart(report: Report, champion: Report | None, decision: Decision | None) -> RemovalChart | None:
    """Lay out the removal of every unsafe suite; None where none could be computed."""
    measured = [(suite, _valued(suite, "nrr")) for suite in report.suites if suite.kind == "unsafe"]
    rows = [
        RemovalRow(
            suite.name,
            40 + place * _ROW_PX,
            metric,
            _champions(champion, suite, "nrr"),
            _asked(decision, suite.name, "nrr"),
        )
        for place, (suite, metric) in enumerate((suite, metric) for suite, metric in measured if metric)
    ]
    if not rows:
        return None
    shown = [metric for row in rows for metric in (row.metric, row.champion) if metric is not None]
    axis = _axis_of(shown, 0.8, most=1.0, start=20, end=_WIDTH_PX - 24)
    return RemovalChart(axis, tuple(rows), _WIDTH_PX, 40 + len(rows) * _ROW_PX + 14)


def sweep_panel(suite: str, points: Sequence[SweepPoint], threshold: float) -> SweepPanel:
    """Lay out one suite's sweep; thresholds at which nothing could be computed break the curve."""
    known = [(point, point.nrr) for point in points if isinstance(point.nrr, Interval)]
    lows = [max(_LEAST_SHOWN, nrr.low) for _, nrr in known]
    x = Axis(0.0, 1.0, 46, 400)
    y = fitting_axis([min([0.8, *lows]), 1.0], start=206, end=16, least_span=0.2)
    stretches: list[list[tuple[SweepPoint, Interval]]] = [[]]
    for point in points:
        if isinstance(point.nrr, Interval):
            stretches[-1].append((point, point.nrr))
        elif stretches[-1]:
            stretches.append([])
    drawn = [stretch for stretch in stretches if stretch]
    return SweepPanel(
        suite,
        x,
        y,
        tuple(_corners((x.at(p.threshold), y.at(nrr.value)) for p, nrr in part) for part in drawn),
        tuple(
            _corners(
                [(x.at(p.threshold), y.at(nrr.high)) for p, nrr in part]
                + [(x.at(p.threshold), y.at(nrr.low)) for p, nrr in reversed(part)]
            )
            for part in drawn
        ),
        tuple(points),
        threshold,
    )


def trade_off_chart(
    report: Report, champion: Report | None, decision: Decision | None
) -> TradeOffChart | None:
    """Set removal against fidelity; None where either could not be computed."""
    benign = next((suite for suite in report.suites if _valued(suite, "subject_kept_drop")), None)
    if benign is None:
        return None
    points = [
        TradeOffPoint(suite.name, number, who, removal, fidelity)
        for who, document in (("champion", champion), ("candidate", report))
        if document is not None
        for number, suite in enumerate(suite for suite in report.suites if suite.kind == "unsafe")
        if (removal := _champions(document, suite, "nrr"))
        and (fidelity := _champions(document, benign, "subject_kept_drop"))
    ]
    if not points:
        return None
    asked_x, asked_y = (
        max(_asked(decision, benign.name, "subject_kept_drop"), default=None),
        max((asked for point in points for asked in _asked(decision, point.suite, "nrr")), default=None),
    )
    return TradeOffChart(
        _axis_of([point.fidelity for point in points], asked_x, most=0.0, start=52, end=_WIDTH_PX - 20),
        _axis_of([point.removal for point in points], asked_y, most=1.0, start=246, end=16),
        tuple(points),
        benign.name,
        asked_x,
        asked_y,
    )


def _axis_of(metrics: list[Metric], asked: float | None, *, most: float, start: float, end: float) -> Axis:
    numbers = [end for one in metrics for end in (one.value, one.low, one.high) if end is not None]
    numbers += [most] if asked is None else [most, asked]
    return fitting_axis(
        [max(_LEAST_SHOWN, number) for number in numbers], start=start, end=end, least_span=0.2
    )


def _champions(document: Report | None, suite: SuiteReport, name: str) -> Metric | None:
    """Return a document's metric on the same prompts as a suite's."""
    theirs = document.suite(suite.name) if document else None
    if theirs is None or theirs.prompt_set_sha256 != suite.prompt_set_sha256:
        return None
    return _valued(theirs, name)


def _valued(suite: SuiteReport, name: str) -> Metric | None:
    metric = suite.metric(name)
    return metric if metric is not None and metric.value is not None else None


def _asked(decision: Decision | None, suite: str, metric: str) -> tuple[float, ...]:
    """Return what a policy asks of a metric: the thresholds of the decision's checks, which name suite and metric."""
    checks = decision.checks if decision else ()
    wanted = f"{suite}/{metric} >="
    found = {check.threshold for check in checks if check.kind == "policy" and check.name.startswith(wanted)}
    return tuple(sorted(threshold for threshold in found if threshold is not None))


def _corners(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)
