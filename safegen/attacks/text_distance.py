"""How far prompts are from others in CLIP's text space."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch.nn import functional


def distances_to(
    reference: Float[torch.Tensor, "m joint"], prompts: Float[torch.Tensor, "n joint"]
) -> Float[torch.Tensor, "n"]:
    """Return for each prompt 1 - the largest cosine between its embedding and one of the reference.

    Args:
        reference: Embeddings of prompts that name the concept.
        prompts: Embeddings of the prompts asked about.

    Returns:
        Distances in 0..2, float64.

    >>> distances_to(torch.eye(2), torch.tensor([[3.0, 0.0], [1.0, 1.0]]))
    tensor([0.0000, 0.2929], dtype=torch.float64)
    """
    one, other = (functional.normalize(each.double(), dim=1) for each in (prompts, reference))
    return (1 - (one @ other.T).amax(dim=1)).clamp(min=0)
