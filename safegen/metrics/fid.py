"""Fréchet distance between two sets of pictures (Heusel et al. 2017, arXiv 1706.08500), through torchmetrics.

FID = |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of the features' means and covariances. It is biased at small N, so
it is shown with N, and below 10,000 pictures KID leads.
"""

from __future__ import annotations

import torch
from jaxtyping import Float

from safegen.domain.statistics import NotComputable
from safegen.metrics.feature_net import GivenFeatures


def frechet_distance(
    reference: Float[torch.Tensor, "n features"], candidate: Float[torch.Tensor, "m features"]
) -> float | NotComputable:
    """Return the FID of two sets of features.

    Args:
        reference: Features of the pictures compared with; computed in float64.
        candidate: Features of the candidate's pictures.

    Returns:
        The distance, >= 0, or NotComputable below 2 pictures or where a feature is not finite.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    smaller = min(len(reference), len(candidate))
    if smaller < 2:
        return NotComputable(f"{smaller} pictures have no covariance", smaller)
    if not (reference.isfinite().all() and candidate.isfinite().all()):
        return NotComputable("features are not finite", smaller)
    metric = FrechetInceptionDistance(feature=GivenFeatures(reference.shape[1]))
    metric.update(reference.double(), real=True)
    metric.update(candidate.double(), real=False)
    # Equal sets may come out a rounding error below zero.
    return max(0.0, float(metric.compute()))
