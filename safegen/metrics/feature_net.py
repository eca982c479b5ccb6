"""The feature net under FID and KID: what any of them offers, and a CLIP vision tower as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Float, UInt8
from torch import nn

from safegen.domain.report import Plain

if TYPE_CHECKING:
    from safegen.metrics.clip_pair import ClipPair


class FeatureExtractor(Protocol):
    """A net that turns pictures into features. Numbers are comparable only between equal nets, hence `method`."""

    @property
    def method(self) -> dict[str, Plain]:
        """What a report says of the net: `feature_net`, `feature_net_sha256` and `resize`."""
        ...

    def __call__(self, images: UInt8[torch.Tensor, "b 3 height width"]) -> Float[torch.Tensor, "b features"]:
        """Return the features of RGB pictures in 0..255, float32 on the CPU."""
        ...


class FeatureNet(nn.Module):
    """Pooled features of a CLIP vision tower, before the projection to the space shared with text.

    FID on CLIP features follows Kynkäänniemi et al. 2023 (arXiv 2203.06026).

    Args:
        clip: The model.
    """

    def __init__(self, clip: ClipPair) -> None:
        super().__init__()
        self.clip = clip
        self.num_features = clip.width

    @property
    def method(self) -> dict[str, Plain]:
        """As in `FeatureExtractor.method`."""
        return {
            "feature_net": f"{self.clip.name} CLIP vision tower, pooled, {self.num_features} features",
            "feature_net_sha256": self.clip.sha256,
            "resize": self.clip.resize_rule,
        }

    def forward(self, images: UInt8[torch.Tensor, "b 3 height width"]) -> Float[torch.Tensor, "b features"]:
        """As in `FeatureExtractor.__call__`."""
        _, _, pooled = self.clip.picture_embeddings(list(images.permute(0, 2, 3, 1).cpu().numpy()))
        return pooled


class GivenFeatures(nn.Module):
    """Stands for a feature net where features are there already: they pass through it as they are.

    torchmetrics' distances take pictures and a net. With this in the net's place they take features, so a picture
    goes through the real net once for all distances.

    Args:
        num_features: Width of the features.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Float[torch.Tensor, "b features"]) -> Float[torch.Tensor, "b features"]:
        """Return what is given."""
        return features
