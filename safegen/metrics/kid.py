"""Kernel distance between two sets of pictures (Binkowski et al. 2018, arXiv 1801.01401), through torchmetrics.

The unbiased estimate of the squared maximum mean discrepancy under the kernel (x.y / d + 1)^3, averaged over random
subsets. Unbiased means that it may fall below zero where the sets are alike.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float

from safegen.domain.statistics import NotComputable
from safegen.metrics.feature_net import GivenFeatures

SUBSETS = 100
LARGEST_SUBSET = 1000


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
