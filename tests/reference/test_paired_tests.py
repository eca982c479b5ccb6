"""Paired tests against hand computation and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from safegen.domain.paired_tests import holm_adjusted, sign_flip_p
from safegen.errors import DataError


def test_holm_against_hand_computation() -> None:
    # Sorted: 0.005 x 4, 0.011 x 3, 0.02 x 2, 0.04 x 1; each at least what stands before it.
    assert holm_adjusted([0.02, 0.005, 0.04, 0.011]) == pytest.approx([0.04, 0.02, 0.04, 0.033])
    assert holm_adjusted([0.5, 0.6]) == [1.0, 1.0]
    assert holm_adjusted([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(deadline=None, max_examples=60)
def test_holm_rejects_as_the_step_down_procedure_does(p_values: list[float]) -> None:
    """At every alpha: walk up the sorted values and stop at the first that is not below its own bound."""
    adjusted = holm_adjusted(p_values)
    for alpha in (0.01, 0.05, 0.3):
        rejected: set[int] = set()
        for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if (len(p_values) - rank) * p_values[place] > alpha:
                break
            rejected.add(place)
        assert {place for place, value in enumerate(adjusted) if value <= alpha} == rejected


def test_one_picture_a_prompt_is_mcnemars_exact_test() -> None:
    ours = np.array([1] * 3 + [0] * 11 + [1] * 6 + [0] * 4)
    theirs = np.array([0] * 3 + [1] * 11 + [1] * 6 + [0] * 4)
    assert sign_flip_p(ours, theirs) == pytest.approx(stats.binomtest(3, 14, 0.5).pvalue)


def test_several_pictures_a_prompt_agree_with_all_sign_flips() -> None:
    ours, theirs = np.array([3, 0, 2, 1, 0, 3, 1, 0]), np.array([1, 0, 3, 3, 2, 3, 3, 1])
    exact = stats.permutation_test(
        (ours, theirs),
        lambda x, y, axis: np.sum(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
    )
    assert sign_flip_p(ours, theirs) == pytest.approx(exact.pvalue)
    assert sign_flip_p(theirs, ours) == sign_flip_p(ours, theirs)


def test_no_difference_is_no_evidence() -> None:
    assert sign_flip_p(np.array([2, 1]), np.array([2, 1])) == 1.0
    assert sign_flip_p(np.array([], dtype=np.int64), np.array([], dtype=np.int64)) == 1.0


def test_counts_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(DataError, match="cannot pair"):
        sign_flip_p(np.array([1, 2]), np.array([1]))
