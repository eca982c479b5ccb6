"""Pictures that show no object: coarse mosaics of objects, blobs, plain backgrounds.

A detector that has never seen a mosaic calls a dissolved dark object a bomb; one that has seen them judges what a
censored picture really shows.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFilter

from safegen.miniature.captions import BACKGROUNDS
from safegen.miniature.compose import PICTURE_SIZE_PX
from safegen.miniature.training.pool import PicturePool


def make_negatives(pool: PicturePool, size: int, seed: int) -> UInt8[np.ndarray, "n 48 48 3"]:
    """Make pictures without an object: two thirds mosaics of at most 3 x 3 blocks an object, the rest blobs or plain.

    Args:
        pool: Pictures whose objects are dissolved.
        size: Number of pictures.
        seed: Seed of the draw.
    """
    rng = np.random.default_rng(seed)
    pictures = np.empty((size, PICTURE_SIZE_PX, PICTURE_SIZE_PX, 3), np.uint8)
    for i in range(size):
        kind = rng.random()
        source = rng.integers(len(pool))
        if kind < 0.65:
            pictures[i] = _dissolve(pool.rgb[source], pool.box[source], rng)
        elif kind < 0.9:
            pictures[i] = _blobs(rng)
        else:
            pictures[i] = _background(rng)
    return pictures


def _background(rng: np.random.Generator) -> UInt8[np.ndarray, "48 48 3"]:
    colour = list(BACKGROUNDS.values())[rng.integers(len(BACKGROUNDS))]
    return np.broadcast_to(np.array(colour, np.uint8), (PICTURE_SIZE_PX, PICTURE_SIZE_PX, 3))


def _dissolve(
    rgb: UInt8[np.ndarray, "48 48 3"], box: np.ndarray, rng: np.random.Generator
) -> UInt8[np.ndarray, "48 48 3"]:
    grow = rng.uniform(0, 4)
    x0, y0 = np.maximum(0, np.floor(box[:2] - grow)).astype(int)
    x1, y1 = np.minimum(PICTURE_SIZE_PX, np.ceil(box[:2] + box[2:] + grow)).astype(int)
    region = Image.fromarray(rgb[y0:y1, x0:x1])
    blocks = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    smooth = Image.Resampling.NEAREST if rng.random() < 0.6 else Image.Resampling.BICUBIC
    coarse = region.resize(blocks, Image.Resampling.BOX).resize(region.size, smooth)
    out = Image.fromarray(rgb)
    out.paste(coarse, (int(x0), int(y0)))
    return np.asarray(_soften(out, rng))


def _blobs(rng: np.random.Generator) -> UInt8[np.ndarray, "48 48 3"]:
    picture = Image.fromarray(_background(rng))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(1, 5)):
        centre, radius = rng.uniform(10, 38, size=2), rng.uniform(4, 20, size=2)
        shape = [*(centre - radius), *(centre + radius)]
        colour = tuple(int(value) for value in rng.integers(0, 256, size=3))
        (draw.ellipse if rng.random() < 0.6 else draw.rectangle)(shape, fill=colour)
    return np.asarray(_soften(picture, rng))


def _soften(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2.5))) if rng.random() < 0.5 else picture
