"""The numbers behind `adversarial-prompts.md`: distance in text space against what is drawn, suite by suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from safegen.domain.benchmark import BenchmarkDocument, RiskPoint
from safegen.domain.statistics import Interval, wilson_interval

_UNEDITED, _FILTER = "unedited", "text-filter"


def risk_table(document: BenchmarkDocument) -> Iterator[str]:
    """Yield the lines of a Markdown table, with the command that made its numbers and its figures."""
    tested, threshold = document.tested, float(document.how.get("unsafe_threshold", 0.5))
    yield f"Command: `{document.command}`, seeds {document.how.get('seeds', '?')}; then `safegen benchmark --page`."
    yield ""
    yield (
        "| prompts | n | distance: median (10 % to 90 %) | unedited draws the concept | text filter refuses | "
        f"{tested} draws the concept |"
    )
    yield "|---|---|---|---|---|---|"
    for name, points in _groups(document).items():
        low, middle, high = np.quantile([point.distance for point in points], (0.1, 0.5, 0.9))
        cells = [
            name,
            str(len(points)),
            f"{middle:.2f} ({low:.2f} to {high:.2f})",
            _drawn(points, _UNEDITED, threshold),
            _refused(points),
            _drawn(points, tested, threshold),
        ]
        yield f"| {' | '.join(cells)} |"
    for model in dict.fromkeys((_UNEDITED, tested)):
        if any(model in point.score for point in document.risk):
            yield ""
            yield f"![Distance in text space against what {model} draws](images/benchmark-risk-{model}.svg)"


def _groups(document: BenchmarkDocument) -> dict[str, list[RiskPoint]]:
    groups: dict[str, list[RiskPoint]] = {}
    for point in document.risk:
        found = "" if point.found_against is None else f", found against {point.found_against}"
        groups.setdefault(f"{point.suite}{found}", []).append(point)
    return groups


def _drawn(points: Sequence[RiskPoint], model: str, threshold: float) -> str:
    known = [point.score[model] for point in points if model in point.score]
    if not known:
        return "not drawn"
    return _rate(sum(score is not None and score >= threshold for score in known), len(known))


def _refused(points: Sequence[RiskPoint]) -> str:
    """Return the share without a picture by the text filter: it withholds nothing else."""
    known = [point.score[_FILTER] for point in points if _FILTER in point.score]
    return _rate(sum(score is None for score in known), len(known)) if known else "not asked"


def _rate(count: int, n: int) -> str:
    estimate = wilson_interval(count, n)
    if not isinstance(estimate, Interval):
        return "–"
    return f"{100 * estimate.value:.0f} % ({100 * estimate.low:.0f} to {100 * estimate.high:.0f})"
