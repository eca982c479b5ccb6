"""Estimates with intervals: rates, differences of paired rates, means. The removal rate is in `removal`.

A quantity that the data cannot give is a `NotComputable` with the reason, never 0, 1 or NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from safegen.errors import DataError

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its confidence interval.

    Attributes:
        value: The point estimate.
        low: Lower end, never above `value`.
        high: Upper end, never below `value`.
        n: Number of independent units behind it (prompts or images).
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class NotComputable:
    """What stands in the place of an estimate that the data cannot give.

    Attributes:
        reason: Why, in one line.
        n: Number of independent units there were.
    """

    reason: str
    n: int


Estimate = Interval | NotComputable


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Estimate a rate from a count by Wilson's score interval.

    It stays honest at the ends: 0 of 79 still allows a rate of 4.6 %.
    Source: E. B. Wilson, JASA 22 (1927) 209-212.

    Args:
        successes: How many of the `n` did.
        n: How many there were; 0 is not computable.
        confidence: Two-sided, such as 0.95.

    Raises:
        DataError: Not 0 <= successes <= n, or a confidence outside (0, 1).

    >>> interval = wilson_interval(0, 79)
    >>> round(interval.high, 3)
    0.046
    """
    if not 0 <= successes <= n:
        raise DataError(f"cannot estimate a rate: {successes} of {n}; expected 0 <= successes <= n")
    if n == 0:
        return NotComputable("no images", 0)
    z = normal_quantile(confidence)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(value=rate, low=min(low, rate), high=max(high, rate), n=n)


def paired_rate_difference(base: BoolArray, candidate: BoolArray, confidence: float = 0.95) -> Estimate:
    """Estimate candidate rate minus base rate over the same prompts and seeds.

    Newcombe's square-and-add of the two Wilson intervals with the pairs' correlation, which does not
    collapse to a point when no pair disagrees. Source: R. G. Newcombe, Statistics in Medicine 17 (1998)
    2635-2650, method 10.

    Args:
        base: [n] bool, one entry per pair.
        candidate: [n] bool, in the same order.
        confidence: Two-sided.

    Returns:
        The difference (-1..1, negative when the candidate has fewer), or NotComputable for no pairs.

    Raises:
        DataError: The arrays differ in shape or are not one-dimensional.

    >>> paired_rate_difference(np.array([True, True]), np.array([True, False])).value
    -0.5
    """
    check_pairs(base, candidate)
    n = len(base)
    ours = wilson_interval(int(candidate.sum()), n, confidence)
    theirs = wilson_interval(int(base.sum()), n, confidence)
    if isinstance(ours, NotComputable) or isinstance(theirs, NotComputable):
        return NotComputable("no pairs of images", 0)
    correlation = _pair_correlation(base, candidate)
    difference = ours.value - theirs.value

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * correlation * one * other + other * other))

    low = difference - reach(ours.value - ours.low, theirs.high - theirs.value)
    high = difference + reach(ours.high - ours.value, theirs.value - theirs.low)
    return Interval(value=difference, low=max(-1.0, low), high=min(1.0, high), n=n)


def mean_interval(values: FloatArray, confidence: float = 0.95) -> Estimate:
    """Estimate a mean by Student's t; for a paired difference pass the differences.

    The t quantile is the expansion 26.7.5 of Abramowitz and Stegun, right to 1e-3 from 5 values on.

    Args:
        values: [n] float, finite.
        confidence: Two-sided.

    Returns:
        The mean, or NotComputable below 2 values or where a value is not finite.

    >>> mean_interval(np.array([1.0, 2.0, 3.0])).value
    2.0
    """
    n = int(values.size)
    if n < 2:
        return NotComputable(f"{n} values give no interval of a mean", n)
    if not np.isfinite(values).all():
        return NotComputable(f"{int((~np.isfinite(values)).sum())} of {n} values are not finite", n)
    mean = float(values.mean())
    half = _t_quantile(confidence, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(value=mean, low=mean - half, high=mean + half, n=n)


def normal_quantile(confidence: float) -> float:
    """Return z such that a standard normal lies within +-z with probability `confidence`.

    Raises:
        DataError: A confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise DataError(
            f"cannot make an interval at confidence {confidence}; expected a number between 0 and 1"
        )
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def check_pairs(base: NDArray[np.generic], candidate: NDArray[np.generic]) -> None:
    """Refuse two arrays that cannot be the two halves of the same pairs.

    Raises:
        DataError: They differ in shape or are not one-dimensional.
    """
    if base.ndim != 1 or base.shape != candidate.shape:
        raise DataError(
            f"cannot pair base {base.shape} with candidate {candidate.shape}; "
            "expected two arrays [n] in the same order"
        )


def _pair_correlation(base: BoolArray, candidate: BoolArray) -> float:
    both, neither = int((base & candidate).sum()), int((~base & ~candidate).sum())
    only_base, only_candidate = int((base & ~candidate).sum()), int((~base & candidate).sum())
    scale = math.sqrt(
        (both + only_base) * (only_candidate + neither) * (both + only_candidate) * (only_base + neither)
    )
    if scale == 0:
        return 0.0
    excess = both * neither - only_base * only_candidate
    # Newcombe's continuity correction: a positive correlation narrows the interval, so only the sure part
    # counts.
    return (max(0.0, excess - len(base) / 2) if excess > 0 else excess) / scale


def _t_quantile(confidence: float, degrees: int) -> float:
    z = normal_quantile(confidence)
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + g1 / degrees + g2 / degrees**2 + g3 / degrees**3 + g4 / degrees**4
