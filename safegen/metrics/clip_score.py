"""CLIP score: how well pictures fit their prompts (Hessel et al. 2021, arXiv 2104.08718, without its rescaling)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch.nn import functional

SCALE = 100.0


def clip_scores(
    pictures: Float[torch.Tensor, "n joint"], prompts: Float[torch.Tensor, "n joint"]
) -> Float[torch.Tensor, "n"]:
    """Return the cosine of each picture's and its prompt's embedding, times 100.

    Not cut off at zero, so that a mean over pictures stays a mean.

    Args:
        pictures: Embeddings of pictures.
        prompts: Embeddings of their prompts, in the same order.

    Returns:
        Scores in -100..100, float64.

    >>> clip_scores(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([60.], dtype=torch.float64)
    """
    return SCALE * functional.cosine_similarity(pictures.double(), prompts.double(), dim=1)
