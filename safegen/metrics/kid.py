"""Kernel distance between two sets of pictures (Binkowski et al. 2018, arXiv 1801.01401).

The unbiased estimate of the squared maximum mean discrepancy under the kernel (x.y / d + 1)^3. Unbiased means that it
may fall below zero where the sets are alike.

`kernel_distance` is the usual estimate, averaged over random subsets by torchmetrics, and takes the two sets as
independent. Pictures of two models by the same prompts and seeds are not: each has its twin in the other set, which
pulls the estimate down, by more than a visible loss of quality pushes it up where pictures are a hundred.
`paired_kernel_distance` leaves the twins out.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float

from safegen.domain.statistics import Estimate, Interval, NotComputable, normal_quantile
from safegen.metrics.feature_net import GivenFeatures

SUBSETS = 100
LARGEST_SUBSET = 1000
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class KernelDistance:
    """A KID.

    Attributes:
        value: Mean over subsets.
        std: Standard deviation over subsets; no interval, since subsets share pictures.
        subset_size: Pictures of each set in one subset.
    """

    value: float
    std: float
    subset_size: int


def subset_size_for(n: int) -> int:
    """Return the usual 1000, or half of the pictures where there are fewer than 2000.

    >>> subset_size_for(200), subset_size_for(30_000)
    (100, 1000)
    """
    return min(LARGEST_SUBSET, n // 2)


def kernel_distance(
    reference: Float[torch.Tensor, "n features"],
    candidate: Float[torch.Tensor, "m features"],
    *,
    seed: int,
    subsets: int = SUBSETS,
    subset_size: int | None = None,
) -> KernelDistance | NotComputable:
    """Return the KID of two sets of features.

    Args:
        reference: Features of the pictures compared with; computed in float64.
        candidate: Features of the candidate's pictures.
        seed: Of the choice of subsets.
        subsets: How many.
        subset_size: Pictures of each set in one subset; None for `subset_size_for`.

    Returns:
        The distance, or NotComputable below 4 pictures or where a feature is not finite.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    smaller = min(len(reference), len(candidate))
    size = subset_size or subset_size_for(smaller)
    if not 2 <= size <= smaller:
        return NotComputable(f"{smaller} pictures give no subset of {max(size, 2)}", smaller)
    if not (reference.isfinite().all() and candidate.isfinite().all()):
        return NotComputable("features are not finite", smaller)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all", UserWarning)
        metric = KernelInceptionDistance(
            feature=GivenFeatures(reference.shape[1]), subsets=subsets, subset_size=size
        )
    metric.update(reference.double(), real=True)
    metric.update(candidate.double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, std = metric.compute()
    return KernelDistance(float(mean), float(std), size)


def paired_kernel_distance(
    base: Float[torch.Tensor, "n features"],
    candidate: Float[torch.Tensor, "n features"],
    confidence: float = 0.95,
) -> Estimate:
    """Return the KID of two sets whose pictures are pairs.

    The U-statistic of Gretton et al. 2012 (JMLR 13, lemma 6): the mean over i != j of
    h(i, j) = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i). All pictures are used, no subsets. The interval is
    the normal one with the jackknife's standard error over pairs (Arvesen 1969).

    Args:
        base: Features of the base's pictures; computed in float64.
        candidate: Features of the candidate's pictures, in the same order.
        confidence: Two-sided.

    Returns:
        The distance, exactly 0 for equal sets, or NotComputable below 4 pairs or where a feature is not finite.
    """
    n = len(base)
    if n < 4:
        return NotComputable(f"{n} pairs of pictures give no interval", n)
    if not (base.isfinite().all() and candidate.isfinite().all()):
        return NotComputable("features are not finite", n)
    rows = _pair_sums(base.double(), candidate.double())
    total = rows.sum()
    value = float(total / (n * (n - 1)))
    without_one = (total - 2 * rows) / ((n - 1) * (n - 2))
    error = math.sqrt((n - 1) / n * float((without_one - without_one.mean()).square().sum()))
    half = normal_quantile(confidence) * error
    return Interval(value=value, low=value - half, high=value + half, n=n)


def _pair_sums(
    x: Float[torch.Tensor, "n features"], y: Float[torch.Tensor, "n features"]
) -> Float[torch.Tensor, "n"]:
    """Return for each i the sum of h(i, j) over all j != i, block by block so that memory grows with n alone."""
    sums: list[torch.Tensor] = []
    for block in torch.arange(len(x)).split(_BLOCK):
        h = (
            _cubic_kernel(x[block], x)
            + _cubic_kernel(y[block], y)
            - _cubic_kernel(x[block], y)
            - _cubic_kernel(y[block], x)
        )
        h[torch.arange(len(block)), block] = 0
        sums.append(h.sum(dim=1))
    return torch.cat(sums)


def _cubic_kernel(
    x: Float[torch.Tensor, "n features"], y: Float[torch.Tensor, "m features"]
) -> Float[torch.Tensor, "n m"]:
    return (x @ y.T / x.shape[1] + 1) ** 3
