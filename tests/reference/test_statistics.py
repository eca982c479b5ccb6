from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from safegen.domain.removal import paired_bootstrap_nrr, paired_bootstrap_nrr_parts
from safegen.domain.statistics import (
    Interval,
    NotComputable,
    mean_interval,
    paired_rate_difference,
    wilson_interval,
)
from safegen.errors import DataError


def first(n: int, count: int) -> np.ndarray:
    return np.arange(n) < count


def interval(estimate: Interval | NotComputable) -> Interval:
    assert isinstance(estimate, Interval), estimate
    return estimate


# By hand, with z^2 = 3.8414588: 0 of n gives high = z^2 / (n + z^2), and 10 of 20 gives
# 0.5 -+ z sqrt(0.25/20 + z^2/1600) / (1 + z^2/20). 81 of 263 and 15 of 148 are worked examples of Newcombe,
# Statistics in Medicine 17 (1998) 857-872, table I.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 79, 0.0, 3.8414588 / 82.8414588),
        (0, 931, 0.0, 3.8414588 / 934.8414588),
        (10, 20, 0.2992980, 0.7007020),
        (20, 20, 20 / 23.8414588, 1.0),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
    ],
)
def test_wilson_equals_hand_computed_and_published_constants(
    successes: int, n: int, low: float, high: float
) -> None:
    found = interval(wilson_interval(successes, n))
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert (found.value, found.n) == (successes / n, n)


@pytest.mark.parametrize(
    ("successes", "n", "confidence"), [(0, 5, 0.9), (3, 7, 0.95), (97, 100, 0.99), (1, 1, 0.95)]
)
def test_wilson_equals_scipy(successes: int, n: int, confidence: float) -> None:
    found = interval(wilson_interval(successes, n, confidence))
    theirs = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_refuses_nonsense_and_does_not_invent() -> None:
    assert isinstance(wilson_interval(0, 0), NotComputable)
    for successes, n, confidence in [(-1, 3, 0.95), (4, 3, 0.95), (1, 3, 1.0), (1, 3, 0.0)]:
        with pytest.raises(DataError):
            wilson_interval(successes, n, confidence)


@pytest.mark.parametrize("n", [5, 10, 100, 2000])
def test_mean_interval_equals_scipys_t(n: int) -> None:
    values = np.random.default_rng(n).normal(3.0, 2.0, n)
    found = interval(mean_interval(values))
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (found.low + found.high) / 2 == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(high - low, rel=1e-3)


def test_mean_of_nothing_or_of_nan_is_not_computable() -> None:
    assert isinstance(mean_interval(np.array([1.0])), NotComputable)
    assert isinstance(mean_interval(np.array([1.0, np.nan, 2.0])), NotComputable)


def test_paired_difference_by_hand() -> None:
    # 10 pairs: both 5, only base 2, only candidate 1, neither 2. Wilson of 7/10 and 6/10: (0.39678, 0.89221)
    # and (0.31267, 0.83182). phi = (5*2 - 2*1 - 10/2) / sqrt(7*3*6*4) = 3 / 22.44994 = 0.13363.
    base = np.array([1, 1, 1, 1, 1, 1, 1, 0, 0, 0], dtype=bool)
    candidate = np.array([1, 1, 1, 1, 1, 0, 0, 1, 0, 0], dtype=bool)
    found = interval(paired_rate_difference(base, candidate))
    down, up, phi = 0.6 - 0.31267, 0.89221 - 0.7, 3 / 22.44994
    low = -0.1 - (down**2 - 2 * phi * down * up + up**2) ** 0.5
    up_ours, down_base = 0.83182 - 0.6, 0.7 - 0.39678
    high = -0.1 + (up_ours**2 - 2 * phi * up_ours * down_base + down_base**2) ** 0.5
    assert (found.value, found.low, found.high) == pytest.approx((-0.1, low, high), abs=1e-4)


def test_paired_difference_of_equal_images_is_not_certain() -> None:
    found = interval(paired_rate_difference(first(50, 50), first(50, 50)))
    assert found.low < -0.05
    assert found.high > 0.05


def test_paired_difference_covers_the_truth() -> None:
    rng, hits = np.random.default_rng(1), 0
    for _ in range(400):
        shared, own = rng.random(200), rng.random(200)
        base = shared < 0.95
        candidate = np.where(rng.random(200) < 0.7, shared, own) < 0.90
        found = interval(paired_rate_difference(base, candidate))
        hits += found.low <= -0.05 <= found.high
    assert hits / 400 >= 0.93


def test_nrr_by_hand() -> None:
    # 80 of 100 unsafe on the base, 4 on the candidate: 1 - 4/80.
    found = interval(paired_bootstrap_nrr(first(100, 80), first(100, 4), seed=0))
    assert found.value == 1 - 4 / 80
    assert found.n == 100
    assert found.low < 0.92  # 4 events: Poisson alone gives 1 - 10.2/80 = 0.87 as the exact end
    assert found.low > 0.85
    assert 0.97 < found.high <= 1


def test_nrr_by_parts_by_hand() -> None:
    base = np.array([3, 2, 0, 5] * 50)
    candidate = np.array([0, 1, 0, 0] * 50)
    found = interval(paired_bootstrap_nrr_parts(base, candidate, seed=0))
    assert found.value == 1 - 50 / 500
    assert found.low < 0.9 < found.high


def test_nrr_can_be_negative() -> None:
    assert interval(paired_bootstrap_nrr(first(100, 20), first(100, 30), seed=0)).value == pytest.approx(-0.5)


# By hand for a base that is always unsafe: u = z^2/(n+z^2), l = 1-u, bound = u / sqrt(l (2-l)).
@pytest.mark.parametrize("n", [10, 100, 1000])
def test_nothing_unsafe_out_of_few_is_not_certainty(n: int) -> None:
    found = interval(paired_bootstrap_nrr(first(n, n), first(n, 0), seed=0))
    upper = 3.8414588 / (n + 3.8414588)
    assert found.low == pytest.approx(1 - upper / ((1 - upper) * (1 + upper)) ** 0.5, abs=1e-6)
    assert (found.value, found.high) == (1.0, 1.0)


def test_the_low_end_does_not_fall_when_one_unsafe_image_goes() -> None:
    lows = [interval(paired_bootstrap_nrr(first(200, 150), first(200, k), seed=0)).low for k in (3, 2, 1, 0)]
    assert lows == sorted(lows)
    assert lows[-1] < 1


def test_parts_of_a_candidate_without_any_are_not_certain() -> None:
    found = interval(paired_bootstrap_nrr_parts(first(60, 60) * 3, first(60, 0) * 1, seed=0))
    assert 0.9 < found.low < 0.95


def test_parts_that_come_in_crowds_widen_the_interval() -> None:
    # One prompt of 100 with ten parts, against one part each: Wilson allows 5.45 of 100 such prompts, so 54 parts.
    found = interval(paired_bootstrap_nrr_parts(first(100, 100) * 1, first(100, 1) * 10, seed=0))
    assert found.value == pytest.approx(0.9)
    assert found.low == pytest.approx(1 - 10 * 0.0545, abs=0.01)


def test_nrr_of_a_base_without_unsafe_images_is_not_computable() -> None:
    nothing = paired_bootstrap_nrr(first(100, 0), first(100, 0), seed=0)
    assert isinstance(nothing, NotComputable)
    assert "nothing unsafe" in nothing.reason
    assert isinstance(paired_bootstrap_nrr(first(0, 0), first(0, 0), seed=0), NotComputable)


def test_nrr_of_a_base_with_too_few_unsafe_images_is_not_computable() -> None:
    few = paired_bootstrap_nrr(first(100, 2), first(100, 0), seed=0)
    assert isinstance(few, NotComputable)
    assert "only 2 of 100" in few.reason


def test_nrr_depends_on_the_seed_alone() -> None:
    one, again, other = (
        interval(paired_bootstrap_nrr_parts(np.arange(300) % 7, (np.arange(300) % 50 == 0) * 2, seed=s))
        for s in (1, 1, 2)
    )
    assert one == again
    assert one.high != other.high


@pytest.mark.parametrize(("removal", "n"), [(0.90, 100), (0.97, 100), (0.95, 400)])
def test_the_low_end_of_nrr_holds_as_often_as_it_says(removal: float, n: int) -> None:
    rng, held = np.random.default_rng(7), 0
    for run in range(300):
        base = rng.random(n) < 0.9
        candidate = base & (rng.random(n) < 1 - removal)
        found = interval(paired_bootstrap_nrr(base, candidate, seed=run, resamples=500))
        held += found.low <= removal
    assert held / 300 >= 0.96  # one-sided 97.5 %


def test_pairs_that_do_not_match_are_refused() -> None:
    with pytest.raises(DataError, match="cannot pair"):
        paired_bootstrap_nrr(first(3, 1), first(4, 1), seed=0)
    with pytest.raises(DataError, match="negative"):
        paired_bootstrap_nrr_parts(np.array([1, -1]), np.array([0, 0]), seed=0)
