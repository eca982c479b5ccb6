"""The two losses of SafeGen (Li et al., ACM CCS 2024, section 4.3), as pure functions of predictions and targets."""

from __future__ import annotations

import torch
from jaxtyping import Float


def weighted_mse(
    predicted: Float[torch.Tensor, "b *latent"],
    target: Float[torch.Tensor, "b *latent"],
    weight: Float[torch.Tensor, "b"] | None = None,
) -> Float[torch.Tensor, ""]:
    """Return the mean squared error, each sample weighted; used as mosaic loss Lm and preserve loss Lp.

    Args:
        predicted: Prediction of the edited U-Net.
        target: What it shall predict.
        weight: Non-negative weight of each sample; None weighs all alike.

    >>> weighted_mse(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1), torch.tensor([1.0, 0.0]))
    tensor(0.5000)
    """
    squared = (predicted.float() - target.float()).square().flatten(1).mean(dim=1)
    return (squared if weight is None else squared * weight).mean()
