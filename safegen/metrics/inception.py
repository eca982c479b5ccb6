"""The feature net of published FIDs: Inception v3 of 2015 as one TorchScript file, `inception-2015-12-05.pt`.

The file (`safegen.metrics.pinned_file.INCEPTION_URL`) needs no torchvision. Pictures enter it as in clean-fid (Parmar
et al. 2022, arXiv 2104.11222, section 3): each channel resized in float32 by Pillow's antialiased bicubic filter, not
rounded to bytes in between, clipped to 0..255.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import cast, final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from safegen.domain.digests import sha256_file
from safegen.domain.report import Plain
from safegen.errors import DataError

_INPUT_PX = 299
_BATCH_SIZE = 16


@final
class InceptionFeatures(nn.Module):
    """2048 features a picture; implements `safegen.metrics.feature_net.FeatureExtractor`."""

    def __init__(self, file: Path) -> None:
        """Load the net.

        Args:
            file: TorchScript file whose `layers` map (b, 3, 299, 299) in [-1, 1] to features.

        Raises:
            DataError: It is no such file.
        """
        super().__init__()
        self._sha256 = sha256_file(file)
        try:
            with warnings.catch_warnings():
                # The published file is TorchScript, whatever torch recommends for new ones.
                warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
                warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
                script = torch.jit.load(file, map_location="cpu").eval()
        except (RuntimeError, ValueError) as error:
            raise DataError(f"feature net {file}: is no TorchScript file ({_one_line(error)})") from error
        layers = getattr(script, "layers", None)
        if layers is None:
            raise DataError(f"feature net {file}: has no `layers`; expected inception-2015-12-05.pt")
        self._layers = cast("nn.Module", layers)

    @property
    def method(self) -> dict[str, Plain]:
        """As in `FeatureExtractor.method`."""
        return {
            "feature_net": "Inception v3 (2015-12-05, TorchScript), 2048 features",
            "feature_net_sha256": self._sha256,
            "resize": f"bicubic, antialiased, per channel in float32 to {_INPUT_PX} x {_INPUT_PX} px, as clean-fid",
        }

    @torch.no_grad()
    def forward(self, images: UInt8[torch.Tensor, "b 3 height width"]) -> Float[torch.Tensor, "b features"]:
        """As in `FeatureExtractor.__call__`."""
        parts = [self._features(part) for part in images.split(_BATCH_SIZE)]
        return torch.cat(parts)

    def _features(self, images: UInt8[torch.Tensor, "b 3 height width"]) -> Float[torch.Tensor, "b features"]:
        resized = np.stack([resized_channels(image) for image in images.cpu().numpy()])
        return self._layers((torch.from_numpy(resized) - 128) / 128).flatten(1).float()


def resized_channels(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bring an RGB picture (3, H, W) in 0..255 to the net's size, as clean-fid does."""
    size = (_INPUT_PX, _INPUT_PX)
    channels = [
        Image.fromarray(channel.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
        for channel in image
    ]
    return np.stack([np.asarray(channel) for channel in channels]).clip(0, 255)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
