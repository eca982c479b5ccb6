"""Tests of paired counts, and what remains of their p-values where many are made.

Two defences draw the same prompts with the same seeds. Pictures of one prompt by several seeds are no independent
evidence, so counts are added up by prompt first (`totals_by_prompt`), and prompts are what is exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safegen.domain.statistics import FloatArray, IntArray, check_pairs


def sign_flip_p(ours: IntArray, theirs: IntArray) -> float:
    """Return the exact two-sided p-value of the sign-flip test on the differences of paired counts.

    If neither defence were better, each prompt's difference would be as likely with either sign. The distribution of
    the summed differences over all 2^n signs is computed exactly, by convolution. With one picture a prompt it is
    McNemar's exact test. Source: R. A. Fisher, The Design of Experiments (1935), section 21.

    Args:
        ours: [n] int, counts by prompt.
        theirs: [n] int, in the same order.

    Returns:
        The p-value, 1 where no pair differs.

    Raises:
        DataError: The arrays differ in shape or are not one-dimensional.

    >>> sign_flip_p(np.array([0, 0, 0, 0, 0]), np.array([1, 1, 1, 1, 1]))
    0.0625
    """
    check_pairs(ours, theirs)
    differences = (ours - theirs).tolist()
    observed = abs(sum(differences))
    spread = sum(abs(difference) for difference in differences)
    chances: FloatArray = np.zeros(2 * spread + 1)  # of every sum from -spread to spread
    chances[spread] = 1.0
    for size in (abs(difference) for difference in differences if difference):
        chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2
    sums = np.abs(np.arange(-spread, spread + 1))
    return min(1.0, float(chances[sums >= observed].sum()))


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down method.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70. The corrected value of the i-th smallest of m is
    the largest of (m - j + 1) p_j over j <= i, at most 1; it is below alpha exactly where the method rejects at alpha.

    Args:
        p_values: Of all tests that are made.

    Returns:
        Corrected values in the same order.

    >>> holm_adjusted([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
