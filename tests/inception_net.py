"""Inception v3 with random weights as a TorchScript file of the form of `inception-2015-12-05.pt`.

Architecture: Szegedy et al. 2015 (arXiv 1512.00567), in the 2048-feature form of the published file.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn


class Unit(nn.Sequential):
    def __init__(
        self, inputs: int, outputs: int, kernel: object, stride: int = 1, padding: object = 0
    ) -> None:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
        # Without trained statistics the scale would fade over 90 layers; He's keeps it.
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        super().__init__(convolution, nn.BatchNorm2d(outputs, eps=0.001), nn.ReLU())


class Branches(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def chain(inputs: int, *steps: tuple) -> nn.Sequential:
    units = []
    for outputs, kernel, *rest in steps:
        units.append(Unit(inputs, outputs, kernel, *rest))
        inputs = outputs
    return nn.Sequential(*units)


def pooled(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), Unit(inputs, outputs, 1))


def block_a(n: int, pool: int) -> Branches:
    return Branches(
        chain(n, (64, 1)),
        chain(n, (48, 1), (64, 5, 1, 2)),
        chain(n, (64, 1), (96, 3, 1, 1), (96, 3, 1, 1)),
        pooled(n, pool),
    )


def block_c(n: int, c: int) -> Branches:
    wide, tall = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    return Branches(
        chain(n, (192, 1)),
        chain(n, (c, 1), (c, *wide), (192, *tall)),
        chain(n, (c, 1), (c, *tall), (c, *wide), (c, *tall), (192, *wide)),
        pooled(n, 192),
    )


def block_e(n: int) -> Branches:
    def fork() -> Branches:
        return Branches(Unit(384, 384, (1, 3), 1, (0, 1)), Unit(384, 384, (3, 1), 1, (1, 0)))

    return Branches(
        chain(n, (320, 1)),
        nn.Sequential(chain(n, (384, 1)), fork()),
        nn.Sequential(chain(n, (448, 1), (384, 3, 1, 1)), fork()),
        pooled(n, 192),
    )


def layers() -> nn.Sequential:
    return nn.Sequential(
        chain(3, (32, 3, 2), (32, 3), (64, 3, 1, 1)),
        nn.MaxPool2d(3, 2),
        chain(64, (80, 1), (192, 3)),
        nn.MaxPool2d(3, 2),
        block_a(192, 32),
        block_a(256, 64),
        block_a(288, 64),
        Branches(
            chain(288, (384, 3, 2)),
            chain(288, (64, 1), (96, 3, 1, 1), (96, 3, 2)),
            nn.MaxPool2d(3, 2),
        ),
        *(block_c(768, width) for width in (128, 160, 160, 192)),
        Branches(
            chain(768, (192, 1), (320, 3, 2)),
            chain(768, (192, 1), (192, (1, 7), 1, (0, 3)), (192, (7, 1), 1, (3, 0)), (192, 3, 2)),
            nn.MaxPool2d(3, 2),
        ),
        block_e(1280),
        block_e(2048),
        nn.AdaptiveAvgPool2d(1),
    )


class PublishedForm(nn.Module):
    """Called as the published file is: pictures in 0..255 and `return_features`, or `layers` on what is prepared."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = layers()
        self.output = nn.Linear(2048, 1008)

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        resized = nn.functional.interpolate(img.float(), size=(299, 299), mode="bilinear")
        features = self.layers((resized - 128) / 128).flatten(1)
        if return_features:
            return features
        return self.output(features).softmax(dim=1)


def save_inception(path: Path, seed: int = 0) -> None:
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(PublishedForm().eval()).save(path)
