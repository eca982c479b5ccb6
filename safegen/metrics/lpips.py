"""LPIPS on AlexNet (Zhang et al. 2018, arXiv 1801.03924; the package `lpips`, its version "0.1").

The channel weights that were fitted to human judgements come from the `lpips` package's wheel, the trunk is
torchvision's AlexNet of ImageNet. Neither package is imported: the trunk's five convolutions stand below, because
`lpips` imports torchvision, whose compiled part must fit the very build of torch.
"""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import cast, final

import torch
from jaxtyping import Float, UInt8
from torch import nn
from torch.nn import functional

from safegen.domain.digests import sha256_file
from safegen.domain.report import Plain
from safegen.errors import DataError

_CHANNELS = (64, 192, 384, 256, 256)
_TINY = 1e-10
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


def bundled_channel_weights() -> Path:
    """Return the file of AlexNet's channel weights inside the installed `lpips` package, without importing it.

    Raises:
        DataError: The package is not installed, or holds no such file.
    """
    spec = util.find_spec("lpips")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise DataError(
            "LPIPS: the package lpips, which carries its weights, is not installed; run pip install --no-deps lpips"
        )
    path = Path(folders[0]) / "weights" / "v0.1" / "alex.pth"
    if not path.is_file():
        raise DataError(f"LPIPS: {path} is missing; run pip install --no-deps --force-reinstall lpips")
    return path


@final
class Lpips(nn.Module):
    """LPIPS of pairs of pictures."""

    def __init__(self, trunk_file: Path, channel_weights: Path | None = None) -> None:
        """Load both sets of weights; no pickled code is run.

        Args:
            trunk_file: torchvision's `alexnet-owt-7be5be79.pth`.
            channel_weights: `alex.pth` of the lpips package; None for the one in the installed package.

        Raises:
            DataError: A file is missing or holds something else.
        """
        super().__init__()
        weights_file = channel_weights or bundled_channel_weights()
        self.trunk = _trunk()
        _load_trunk(self.trunk, trunk_file)
        for place, weight in enumerate(_channel_weights(weights_file)):
            self.register_buffer(f"channel_weight_{place}", weight)
        self.eval().requires_grad_(requires_grad=False)
        self._digests = sha256_file(trunk_file), sha256_file(weights_file)

    @property
    def method(self) -> dict[str, Plain]:
        """What a report says of it."""
        trunk, weights = self._digests
        return {
            "net": "LPIPS 0.1, AlexNet",
            "trunk_sha256": trunk,
            "channel_weights_sha256": weights,
            "resize": "none, pictures in [-1, 1] as they were drawn",
        }

    @torch.no_grad()
    def forward(
        self, left: UInt8[torch.Tensor, "b 3 height width"], right: UInt8[torch.Tensor, "b 3 height width"]
    ) -> Float[torch.Tensor, "b"]:
        """Return the distance of each pair of RGB pictures in 0..255, float64; 0 for equal pictures."""
        layers = zip(self._layers(left), self._layers(right), strict=True)
        distances = torch.zeros(len(left), dtype=torch.float64)
        for place, (one, other) in enumerate(layers):
            weight = cast("torch.Tensor", self.get_buffer(f"channel_weight_{place}"))
            difference = (_unit(one) - _unit(other)).square()
            distances += functional.conv2d(difference, weight).mean(dim=(1, 2, 3)).double()
        return distances

    def _layers(self, images: UInt8[torch.Tensor, "b 3 height width"]) -> list[torch.Tensor]:
        shift, scale = (torch.tensor(triple)[:, None, None] for triple in (_SHIFT, _SCALE))
        states = (images.float() / 127.5 - 1 - shift) / scale
        layers: list[torch.Tensor] = []
        for module in self.trunk:
            states = module(states)
            if isinstance(module, nn.ReLU):
                layers.append(states)
        return layers


def _unit(states: Float[torch.Tensor, "b channels height width"]) -> torch.Tensor:
    return states / (states.square().sum(dim=1, keepdim=True).sqrt() + _TINY)


def _trunk() -> nn.Sequential:
    """AlexNet's convolutions with the places of torchvision's `alexnet().features`."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def _load_trunk(trunk: nn.Sequential, file: Path) -> None:
    prefix = "features."
    found = {
        name.removeprefix(prefix): value for name, value in _tensors(file).items() if name.startswith(prefix)
    }
    try:
        trunk.load_state_dict(found)
    except RuntimeError as error:
        raise DataError(f"LPIPS trunk {file}: is not AlexNet; expected alexnet-owt-7be5be79.pth") from error


def _channel_weights(file: Path) -> list[torch.Tensor]:
    tensors = _tensors(file)
    weights = [tensors.get(f"lin{place}.model.1.weight") for place in range(len(_CHANNELS))]
    shapes = [None if weight is None else tuple(weight.shape) for weight in weights]
    if shapes != [(1, channels, 1, 1) for channels in _CHANNELS]:
        raise DataError(f"LPIPS channel weights {file}: have shapes {shapes}; expected alex.pth of lpips 0.1")
    return [weight for weight in weights if weight is not None]


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's readers raise kinds that share no base
        raise DataError(
            f"LPIPS weights {file}: cannot be read ({type(error).__name__}); expected a file of tensors"
        ) from error
    return {str(name): value for name, value in dict(loaded).items()}
