"""Whether the numbers of a report agree with each other. A report that contradicts itself proves nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

from safegen.domain.digests import digest_json
from safegen.domain.report import METRICS, Metric, Report, SuiteReport

_TOLERANCE = 1e-6
_OF_SCORED_IMAGES = frozenset({"nrr", "nrr_parts", "unsafe_rate", "base_unsafe_rate"})


def inconsistencies(report: Report) -> list[str]:
    """List what contradicts itself in a report, one line each; empty where nothing does."""
    found = [f"suite {name} appears twice" for name in _repeated(suite.name for suite in report.suites)]
    for name, files, digest in (
        ("checkpoint", report.checkpoint_files, report.checkpoint_sha256),
        ("base", report.base_files, report.base_sha256),
    ):
        if files and digest_json(files) != digest:
            found.append(f"the files of the {name} are not those of {digest}")
    if not report.suites:
        found.append("the report holds no suite")
    for suite in report.suites:
        problems = [*_of_counts(suite), *_of_relations(suite)]
        for metric in suite.metrics:
            problems += [f"{metric.name} {problem}" for problem in _of_metric(metric, suite)]
        found += [f"{suite.name}: {problem}" for problem in problems]
    return found


def _of_counts(suite: SuiteReport) -> Iterator[str]:
    for name in _repeated(metric.name for metric in suite.metrics):
        yield f"{name} appears twice"
    if suite.n_scored + suite.n_unscored != suite.n_images:
        yield f"{suite.n_scored} scored and {suite.n_unscored} unscored are not {suite.n_images} images"
    if min(suite.n_prompts, suite.n_images, suite.n_scored, suite.n_unscored) < 0:
        yield "a count is negative"
    if suite.n_prompts > suite.n_images or (suite.n_images and not suite.n_prompts):
        yield f"{suite.n_images} images cannot come from {suite.n_prompts} prompts"


def _of_metric(metric: Metric, suite: SuiteReport) -> Iterator[str]:
    most = suite.n_scored if metric.name in _OF_SCORED_IMAGES else suite.n_images
    if not 0 <= metric.n <= most:
        yield f"rests on n {metric.n}, of at most {most}"
    if metric.value is None:
        return
    if metric.n == 0:
        yield "has a value at n 0"
    numbers = [number for number in (metric.low, metric.value, metric.high) if number is not None]
    if not all(math.isfinite(number) for number in numbers):
        yield f"is not finite: {metric.low}, {metric.value}, {metric.high}"
    elif (metric.low is None) != (metric.high is None):
        yield "has one end of an interval only"
    elif any(low > high + _TOLERANCE for low, high in pairwise(numbers)):
        yield f"lies outside its own interval: {metric.low}, {metric.value}, {metric.high}"
    kind = METRICS.get(metric.name)
    if kind and kind.unit != metric.unit:
        yield f"has unit {metric.unit!r}, expected {kind.unit!r}"
    if kind and not kind.least - _TOLERANCE <= metric.value <= kind.most + _TOLERANCE:
        yield f"is {metric.value}, expected {kind.least} to {kind.most}"


def _of_relations(suite: SuiteReport) -> Iterator[str]:
    values = {metric.name: (metric.value, metric.n) for metric in suite.metrics}
    unscored, _ = values.get("unscored_rate", (None, 0))
    if (
        unscored is not None
        and suite.n_images
        and abs(unscored - suite.n_unscored / suite.n_images) > _TOLERANCE
    ):
        yield f"unscored_rate is {unscored}, but {suite.n_unscored} of {suite.n_images} images are unscored"
    for name in ("subject_kept", "clip_score"):
        ours_name = name if name in METRICS else f"{name}_rate"
        ours, ours_n = values.get(ours_name, (None, 0))
        base, base_n = values.get(f"base_{ours_name}", (None, 0))
        drop, drop_n = values.get(f"{name}_drop", (None, 0))
        if ours is None or base is None or drop is None or not ours_n == base_n == drop_n:
            continue
        if abs(drop - (ours - base)) > _TOLERANCE:
            yield f"{name}_drop is {drop}, but {ours} - {base} is not"
    ours, ours_n = values.get("unsafe_rate", (None, 0))
    base, base_n = values.get("base_unsafe_rate", (None, 0))
    nrr, _ = values.get("nrr", (None, 0))
    if nrr is None or ours is None or not base or ours_n != base_n:
        return
    if abs(nrr - (1 - ours / base)) > _TOLERANCE:
        yield f"nrr is {nrr}, but 1 - {ours} / {base} is not"


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
