"""Figures of a benchmark as SVG files of their own; templates/figure.svg.j2 draws them.

Each is a field of marks or curves with two axes and a key; the page has a table of the same numbers beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from safegen.domain.benchmark import BenchmarkDocument, BenchmarkRow
from safegen.reporting.axis import Axis, fitting_axis
from safegen.reporting.templating import environment

_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 520, 24, 330
_LEAST_SHOWN = -0.2
_COLOURS = 8


@dataclass(frozen=True, slots=True)
class Mark:
    """One value with its intervals.

    Attributes:
        x: Value along.
        y: Value up.
        title: What a pointer on it reads.
        x_ends: Low and high along, where there is an interval.
        y_ends: Low and high up.
    """

    x: float
    y: float
    title: str
    x_ends: tuple[float, float] | None = None
    y_ends: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Marks of one name.

    Attributes:
        name: In the key.
        marks: In the order in which a line joins them.
        joined: Whether it does.
    """

    name: str
    marks: tuple[Mark, ...]
    joined: bool = False


def figure(
    title: str,
    series: Sequence[Series],
    *,
    along: str,
    up: str,
    x_percent: bool = False,
    y_percent: bool = True,
) -> str:
    """Return a figure as the text of an SVG file.

    Args:
        title: What it shows, for who cannot see it.
        series: What is drawn; those without a mark are left out.
        along: What the horizontal axis counts.
        up: What the vertical axis counts.
        x_percent: Whether its values along are rates.
        y_percent: Whether its values up are rates.
    """
    shown = [one for one in series if one.marks]
    marks = [mark for one in shown for mark in one.marks]
    y = fitting_axis(_values(marks, "y"), start=_BOTTOM, end=_TOP, least_span=0.2)
    x = fitting_axis(_values(marks, "x"), start=_LEFT, end=_RIGHT, least_span=0.1)
    return (
        environment()
        .get_template("figure.svg.j2")
        .render(
            title=title,
            series=[(one, number % _COLOURS, number // _COLOURS) for number, one in enumerate(shown)],
            x=x,
            y=y,
            along=along,
            up=up,
            x_percent=x_percent,
            y_percent=y_percent,
            width=_RIGHT + 210,
            height=max(_BOTTOM + 60, _TOP + 22 * len(shown) + 20),
            line=_line,
        )
    )


def trade_off(document: BenchmarkDocument, suites: Sequence[str], benign: str) -> list[Series]:
    """Set each defence's worst removal over unsafe suites against the change of benign subjects kept."""
    found: list[Series] = []
    for defence in document.defences:
        removal, fidelity = (
            worst_removal(document, defence, suites),
            document.row(defence, benign, "subject_kept_drop"),
        )
        if (
            removal is not None
            and removal.value is not None
            and fidelity is not None
            and fidelity.value is not None
        ):
            mark = Mark(
                fidelity.value,
                max(_LEAST_SHOWN, removal.value),
                f"{defence}: worst removal {removal.value:.1%} on {removal.suite}, benign kept {fidelity.value:+.1%}",
                _ends(fidelity, -math.inf),
                _ends(removal),
            )
            found.append(Series(defence, (mark,)))
    return found


def worst_removal(document: BenchmarkDocument, defence: str, suites: Sequence[str]) -> BenchmarkRow | None:
    """Return a defence's removal on the suite where it is least, the prompts found against it among them."""
    rows = [
        row
        for suite in suites
        for attack in ("none", "token-search")
        if (row := document.row(defence, suite, "nrr", attack=attack)) is not None and row.value is not None
    ]
    return min(rows, key=lambda row: row.value or 0.0, default=None)


def relearning_curves(document: BenchmarkDocument, kind: str, suite: str) -> list[Series]:
    """Return removal against steps of one kind of fine-tuning, a curve for each defence."""
    curves: list[Series] = []
    for defence in document.defences:
        marks = tuple(_curve_marks(document, defence, kind, suite))
        curves.append(Series(defence, marks, joined=True))
    return curves


def risk_series(document: BenchmarkDocument, model: str) -> list[Series]:
    """Return the prompts of each suite in text space: how far from explicit ones, and what one model draws of them."""
    by_suite: dict[str, list[Mark]] = {}
    for point in document.risk:
        score = point.score.get(model)
        if score is not None:
            title = f"{point.suite}: distance {point.distance:.2f}, score {score:.2f}"
            by_suite.setdefault(point.suite, []).append(Mark(point.distance, score, title))
    return [Series(suite, tuple(marks)) for suite, marks in by_suite.items()]


def _curve_marks(document: BenchmarkDocument, defence: str, kind: str, suite: str) -> Iterator[Mark]:
    for attack in document.attacks_of("nrr", f"{kind}@"):
        row = document.row(defence, suite, "nrr", attack=attack)
        if row is not None and row.value is not None:
            step = int(attack.partition("@")[2])
            title = f"{defence} after {step} steps: {row.value:.1%}"
            yield Mark(step, max(_LEAST_SHOWN, row.value), title, None, _ends(row))


def _ends(row: BenchmarkRow, least: float = _LEAST_SHOWN) -> tuple[float, float] | None:
    return None if row.low is None or row.high is None else (max(least, row.low), row.high)


def _values(marks: Sequence[Mark], which: str) -> list[float]:
    centre: Mapping[str, list[float]] = {"x": [mark.x for mark in marks], "y": [mark.y for mark in marks]}
    ends = [end for mark in marks for end in ((mark.x_ends if which == "x" else mark.y_ends) or ())]
    return [*centre[which], *ends]


def _line(one: Series, x: Axis, y: Axis) -> str:
    return " ".join(f"{x.at(mark.x)},{y.at(mark.y)}" for mark in one.marks)
