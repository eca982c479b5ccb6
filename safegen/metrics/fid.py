"""Fréchet distance between two sets of pictures (Heusel et al. 2017, arXiv 1706.08500).

FID = |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of the features' means and covariances. It is biased at small N, so
it is shown with N, and below 10,000 pictures KID leads.

The root is never formed. With S1 = A'A and S2 = B'B, A and B the centred features over (n - 1)^(1/2), the eigenvalues
of S1 S2 are the squared singular values of A B', so tr (S1 S2)^(1/2) is the sum of these. That stays exact where there
are fewer pictures than features, hence S1 S2 singular, and costs the smaller of both numbers cubed.
"""

from __future__ import annotations

import torch
from jaxtyping import Float

from safegen.domain.statistics import NotComputable


def frechet_distance(
    reference: Float[torch.Tensor, "n features"], candidate: Float[torch.Tensor, "m features"]
) -> float | NotComputable:
    """Return the FID of two sets of features.

    Args:
        reference: Features of the pictures compared with; computed in float64.
        candidate: Features of the candidate's pictures.

    Returns:
        The distance, >= 0, or NotComputable below 2 pictures or where a feature is not finite.

    >>> cloud = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> frechet_distance(cloud, cloud + torch.tensor([3.0, 4.0]))
    25.0
    """
    smaller = min(len(reference), len(candidate))
    if smaller < 2:
        return NotComputable(f"{smaller} pictures have no covariance", smaller)
    if not (reference.isfinite().all() and candidate.isfinite().all()):
        return NotComputable("features are not finite", smaller)
    (mean, a), (other_mean, b) = _mean_and_root(reference.double()), _mean_and_root(candidate.double())
    shared = torch.linalg.svdvals(a @ b.T).sum()
    distance = (mean - other_mean).square().sum() + a.square().sum() + b.square().sum() - 2 * shared
    # Equal sets may come out a rounding error below zero.
    return max(0.0, float(distance))


def _mean_and_root(
    features: Float[torch.Tensor, "n features"],
) -> tuple[Float[torch.Tensor, "features"], Float[torch.Tensor, "rows features"]]:
    """Return the mean, and a matrix of at most as many rows as features whose square is the covariance."""
    mean = features.mean(dim=0)
    root = (features - mean) / (len(features) - 1) ** 0.5
    return mean, torch.linalg.qr(root, mode="r").R if root.shape[0] > root.shape[1] else root
