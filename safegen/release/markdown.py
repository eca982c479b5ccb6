"""Pieces of Markdown that a release's documents share."""

from __future__ import annotations

from collections.abc import Iterable

from safegen.domain.decision_formats import markdown_cell
from safegen.domain.report import Metric


def metric_value(metric: Metric) -> str:
    """Return a metric's value, or why there is none, for a cell."""
    if metric.value is None:
        return f"not computable: {markdown_cell(metric.reason or '')}"
    return f"{metric.value:.4g}"


def metric_interval(metric: Metric) -> str:
    """Return a metric's interval for a cell, empty where there is none."""
    if metric.low is None or metric.high is None:
        return ""
    return f"{metric.low:.4g} to {metric.high:.4g}"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table; cells are Markdown already.

    >>> print(table(("a", "b"), [("1", "2")]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
