from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg

from safegen.domain.statistics import Interval, NotComputable
from safegen.metrics.fid import frechet_distance
from safegen.metrics.kid import KernelDistance, kernel_distance, paired_kernel_distance


@pytest.fixture(scope="module")
def sets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(12, 12))
    return rng.normal(size=(80, 12)) @ mixing, rng.normal(size=(90, 12)) * 1.3 + 0.4


def test_fid_is_the_textbook_formula_with_scipys_matrix_root(sets: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = sets
    s1, s2 = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = linalg.sqrtm(s1 @ s2).real
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(s1 + s2 - 2 * root)
    assert frechet_distance(torch.tensor(one), torch.tensor(other)) == pytest.approx(expected, rel=1e-8)


def test_fid_of_two_shifted_point_clouds_is_the_squared_shift(sets: tuple[np.ndarray, np.ndarray]) -> None:
    one = torch.tensor(sets[0])
    shift = torch.zeros(12, dtype=torch.float64)
    shift[0], shift[3] = 3.0, 4.0
    assert frechet_distance(one, one + shift) == pytest.approx(25.0, rel=1e-6)
    assert frechet_distance(one, one) == pytest.approx(0.0, abs=1e-6)


def test_kid_of_whole_sets_is_the_unbiased_estimate_under_the_cubic_kernel(
    sets: tuple[np.ndarray, np.ndarray],
) -> None:
    one, other = sets[0], sets[1][:80]

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / 12 + 1) ** 3

    n = len(one)
    within = [(kernel(a, a).sum() - np.trace(kernel(a, a))) / (n * (n - 1)) for a in (one, other)]
    expected = within[0] + within[1] - 2 * kernel(one, other).mean()
    # A subset as large as the set is the set, whatever its order.
    kid = kernel_distance(torch.tensor(one), torch.tensor(other), seed=0, subsets=3, subset_size=n)
    assert isinstance(kid, KernelDistance)
    assert kid.value == pytest.approx(expected, rel=1e-9)
    assert kid.std == pytest.approx(0, abs=1e-9)


def test_kid_follows_its_seed_and_leaves_the_global_generator_alone(
    sets: tuple[np.ndarray, np.ndarray],
) -> None:
    one, other = torch.tensor(sets[0]), torch.tensor(sets[1])
    state = torch.random.get_rng_state()
    values = [kernel_distance(one, other, seed=seed) for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]
    assert torch.equal(state, torch.random.get_rng_state())


def test_paired_kid_is_the_mean_over_pairs_without_twins(
    sets: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = sets[0][:9], sets[1][:9]

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / 12 + 1) ** 3

    h = [
        kernel(x[i], x[j]) + kernel(y[i], y[j]) - kernel(x[i], y[j]) - kernel(x[j], y[i])
        for i in range(9)
        for j in range(9)
        if i != j
    ]
    whole = paired_kernel_distance(torch.tensor(x), torch.tensor(y))
    assert isinstance(whole, Interval)
    assert whole.value == pytest.approx(np.mean(h), rel=1e-12)
    without = [
        paired_kernel_distance(*(torch.tensor(np.delete(s, i, axis=0)) for s in (x, y))).value
        for i in range(9)
    ]
    error = np.sqrt(8 / 9 * np.square(np.array(without) - np.mean(without)).sum())
    assert whole.high - whole.value == pytest.approx(1.959964 * error, rel=1e-6)
    monkeypatch.setattr("safegen.metrics.kid._BLOCK", 4)
    assert paired_kernel_distance(torch.tensor(x), torch.tensor(y)).value == pytest.approx(
        whole.value, rel=1e-12
    )


def test_twins_do_not_hide_that_half_of_the_pictures_were_lost() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(60, 16, generator=generator)
    lost = base.clone()
    lost[::2] += 0.4
    assert paired_kernel_distance(base, base) == Interval(0.0, 0.0, 0.0, 60)
    usual = kernel_distance(base, lost, seed=0, subset_size=60)
    assert isinstance(usual, KernelDistance)
    assert usual.value < 0 < paired_kernel_distance(base, lost).value


@pytest.mark.parametrize("spoiled", [torch.zeros(1, 3), torch.full((8, 3), torch.nan)])
def test_what_cannot_be_computed_is_said_and_is_no_number(spoiled: torch.Tensor) -> None:
    fine = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    assert isinstance(frechet_distance(fine, spoiled), NotComputable)
    assert isinstance(kernel_distance(fine, spoiled, seed=0), NotComputable)
    assert isinstance(paired_kernel_distance(fine[: len(spoiled)], spoiled), NotComputable)
