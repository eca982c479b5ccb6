"""Pictures to measure on: parts of scikit-image's sample photographs, all different."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data


def photographs(count: int, size_px: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Return that many RGB pictures, (size, size, 3), each a part of a photograph with its own light and grain."""
    rng = np.random.default_rng(seed)
    sources = [Image.fromarray(picture) for picture in (data.astronaut(), data.coffee(), data.chelsea())]
    return [_part(sources[number % len(sources)], size_px, rng) for number in range(count)]


def write_jpegs(folder: Path, count: int, size_px: int, seed: int = 0) -> None:
    """Fill a folder with pictures as JPEG files."""
    folder.mkdir(parents=True)
    for start in range(0, count, 500):
        pictures = photographs(min(500, count - start), size_px, seed + start)
        for number, picture in enumerate(pictures, start):
            Image.fromarray(picture).save(folder / f"{number:06d}.jpg", quality=90)


def _part(source: Image.Image, size_px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    side = int(rng.integers(200, min(source.size)))
    left, top = (int(rng.integers(0, whole - side + 1)) for whole in source.size)
    part = source.resize(
        (size_px, size_px), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
    )
    grain = rng.normal(0, 4, (size_px // 4, size_px // 4, 1)).repeat(4, axis=0).repeat(4, axis=1)
    lit = np.asarray(part) * rng.uniform(0.7, 1.2) + np.pad(
        grain, ((0, size_px % 4), (0, size_px % 4), (0, 0))
    )
    return lit.clip(0, 255).astype(np.uint8)
