"""LPIPS on random weights of AlexNet's shapes, against the paper's formula stated anew.

Against the package itself (lpips 0.1.4 with its own channel weights, random trunk, five pairs of 96 x 128 px): within
2e-7. The package imports torchvision, whose compiled part must fit the build of torch, so it is no part of the tests.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from safegen.errors import DataError
from safegen.metrics.lpips import Lpips

SHAPES = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}


@pytest.fixture(scope="module")
def trunk() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {"classifier.1.weight": torch.zeros(2, 2)}  # the published file holds the classifier too
    for place, (out, into, kernel) in SHAPES.items():
        weight = torch.randn(out, into, kernel, kernel, generator=generator)
        tensors[f"features.{place}.weight"] = weight * (2 / (into * kernel**2)) ** 0.5
        tensors[f"features.{place}.bias"] = 0.1 * torch.randn(out, generator=generator)
    return tensors


@pytest.fixture(scope="module")
def channels() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    widths = [out for out, _, _ in SHAPES.values()]
    return {
        f"lin{k}.model.1.weight": torch.rand(1, n, 1, 1, generator=generator) for k, n in enumerate(widths)
    }


@pytest.fixture(scope="module")
def files(
    trunk: dict[str, torch.Tensor],
    channels: dict[str, torch.Tensor],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("lpips")
    torch.save(trunk, folder / "trunk.pth")
    torch.save(channels, folder / "alex.pth")
    return folder / "trunk.pth", folder / "alex.pth"


@pytest.fixture(scope="module")
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    one, other = (
        torch.randint(0, 256, (3, 3, 72, 88), generator=generator, dtype=torch.uint8) for _ in range(2)
    )
    return one, other


def formula(
    trunk: dict[str, torch.Tensor],
    channels: dict[str, torch.Tensor],
    one: torch.Tensor,
    other: torch.Tensor,
) -> float:
    """The distance of one pair, (3, height, width) in 0..255, in NumPy but for the convolutions."""

    def states(image: torch.Tensor) -> list[np.ndarray]:
        x = 2 * (image.double() / 255) - 1
        shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float64)
        scale = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float64)
        x = ((x - shift[:, None, None]) / scale[:, None, None])[None]
        found = []
        for place, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
            if place in (3, 6):
                x = functional.max_pool2d(x, 3, 2)
            weight, bias = (trunk[f"features.{place}.{part}"].double() for part in ("weight", "bias"))
            x = functional.conv2d(x, weight, bias, stride, padding).clamp(min=0)
            found.append(x[0].numpy())
        return found

    total = 0.0
    for layer, (a, b) in enumerate(zip(states(one), states(other), strict=True)):
        unit = [side / np.sqrt((side**2).sum(0) + 1e-20) for side in (a, b)]
        weight = channels[f"lin{layer}.model.1.weight"].double().numpy().ravel()
        total += np.einsum("c,chw->hw", weight, (unit[0] - unit[1]) ** 2).mean()
    return total


def test_it_is_the_papers_formula(
    trunk: dict[str, torch.Tensor],
    channels: dict[str, torch.Tensor],
    files: tuple[Path, Path],
    pairs: tuple[torch.Tensor, torch.Tensor],
) -> None:
    found = Lpips(*files)(*pairs)
    expected = [formula(trunk, channels, one, other) for one, other in zip(*pairs, strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    assert min(expected) > 0.1


def test_a_picture_is_at_no_distance_from_itself_and_order_does_not_matter(
    files: tuple[Path, Path], pairs: tuple[torch.Tensor, torch.Tensor]
) -> None:
    net, (one, other) = Lpips(*files), pairs
    assert net(one, one).tolist() == [0, 0, 0]
    torch.testing.assert_close(net(one, other), net(other, one))


def test_files_that_hold_something_else_are_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    trunk, channels = files
    with pytest.raises(DataError, match=r"trunk .*alex\.pth: is not AlexNet"):
        Lpips(channels, channels)
    with pytest.raises(DataError, match=r"channel weights .*trunk\.pth: have shapes"):
        Lpips(trunk, trunk)
    (tmp_path / "text.pth").write_text("no tensors")
    with pytest.raises(DataError, match=r"text\.pth: cannot be read"):
        Lpips(tmp_path / "text.pth", channels)
