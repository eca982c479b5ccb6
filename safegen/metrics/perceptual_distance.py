"""Perceptual distance of pairs of pictures in the manner of LPIPS, on the feature net of FID and KID.

LPIPS (Zhang et al. 2018, arXiv 1801.03924, section 3) compares unit-normalised channels of several layers of a net,
place by place. Here the layers are the hidden states of a CLIP vision tower, its patches the places, and no channel
weights were fitted to human judgements; so it is no LPIPS and not called so.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float

_TINY = 1e-10


def perceptual_distances(
    left: Sequence[Float[torch.Tensor, "n tokens width"]],
    right: Sequence[Float[torch.Tensor, "n tokens width"]],
) -> Float[torch.Tensor, "n"]:
    """Return the distance of each pair of pictures.

        d = mean over layers of mean over patches of || l / |l| - r / |r| ||^2

    Args:
        left: Hidden states by layer; token 0 is the class token and left out, as it has no place.
        right: Of the other pictures, in the same order.

    Returns:
        Distances in 0..4, float64; 0 for equal pictures.
    """
    layers = [_layer_distance(one.double(), other.double()) for one, other in zip(left, right, strict=True)]
    return torch.stack(layers).mean(dim=0)


def _layer_distance(
    left: Float[torch.Tensor, "n tokens width"], right: Float[torch.Tensor, "n tokens width"]
) -> Float[torch.Tensor, "n"]:
    difference = _unit(left[:, 1:]) - _unit(right[:, 1:])
    return difference.square().sum(dim=2).mean(dim=1)


def _unit(states: Float[torch.Tensor, "n tokens width"]) -> Float[torch.Tensor, "n tokens width"]:
    return states / (states.norm(dim=2, keepdim=True) + _TINY)
