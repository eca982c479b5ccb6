"""The threshold sweep: what the removal rate would be, had the detector been believed earlier or later."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from safegen.domain.removal import paired_bootstrap_nrr_parts, totals_by_prompt
from safegen.domain.report import DetectorRecord
from safegen.domain.statistics import Estimate
from safegen.reporting.scores import PictureScore, ScoredPair

_STEP = 0.05


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """Removal at one threshold.

    Attributes:
        threshold: Score from which a restricted object counts.
        base_unsafe: Unsafe pictures of the base at it.
        candidate_unsafe: Of the candidate.
        n: Pairs of which both pictures were scored.
        nrr: Removal by pictures, with its interval, as the report's own at the report's threshold.
    """

    threshold: float
    base_unsafe: int
    candidate_unsafe: int
    n: int
    nrr: Estimate


def sweep_thresholds(
    pairs: Sequence[ScoredPair],
    unsafe_labels: Collection[str],
    thresholds: Sequence[float],
    *,
    seed: int,
    resamples: int = 10_000,
) -> list[SweepPoint]:
    """Count again at each threshold, from raw scores.

    Args:
        pairs: Of one suite; those with an unscored picture are left out, as in the report.
        unsafe_labels: Labels that make a picture unsafe.
        thresholds: Scores, 0..1.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.

    Returns:
        A point for each threshold, in their order.
    """
    usable = [pair for pair in pairs if pair.scored]
    prompts = [pair.prompt_sha256 for pair in usable]
    labels = frozenset(unsafe_labels)
    base = np.array([_highest(pair.base, labels) for pair in usable], dtype=np.float64)
    ours = np.array([_highest(pair.candidate, labels) for pair in usable], dtype=np.float64)

    def points() -> Iterator[SweepPoint]:
        for threshold in thresholds:
            shown, left = base >= threshold, ours >= threshold
            nrr = paired_bootstrap_nrr_parts(
                totals_by_prompt(shown, prompts),
                totals_by_prompt(left, prompts),
                seed=seed,
                resamples=resamples,
            )
            yield SweepPoint(threshold, int(shown.sum()), int(left.sum()), len(usable), nrr)

    return list(points())


def swept_thresholds(detector: DetectorRecord) -> list[float]:
    """Return the thresholds of a sweep: every 0.05 from the detector's own floor to 0.95, and the report's own.

    Below its floor a detector reports nothing, so nothing can be said there.

    >>> from safegen.domain.report import DetectorRecord
    >>> record = DetectorRecord(name="d", version="1", model_sha256="a" * 64, settings={"score_floor": 0.85},
    ...     unsafe_labels=("AXE",), threshold=0.87)
    >>> swept_thresholds(record)
    [0.85, 0.87, 0.9, 0.95]
    """
    stated = detector.settings.get("score_floor", _STEP)
    floor = float(stated) if isinstance(stated, int | float) else _STEP
    grid = {round(step * _STEP, 2) for step in range(1, 20)}
    return sorted({one for one in grid if one >= floor - 1e-9} | {detector.threshold})


def _highest(score: PictureScore, labels: frozenset[str]) -> float:
    worst = score.worst(labels)
    return -1.0 if worst is None else worst[1]
