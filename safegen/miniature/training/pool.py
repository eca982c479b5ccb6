"""A pool of composed pictures in memory, from which every network draws its batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from safegen.miniature.art import Sprite
from safegen.miniature.captions import BACKGROUNDS
from safegen.miniature.compose import PICTURE_SIZE_PX, Jitter, compose
from safegen.miniature.concepts import CONCEPTS, LABELS, Concept

_RESTRICTED_WEIGHT = 1.5


@dataclass(frozen=True, slots=True)
class PicturePool:
    """Composed pictures and their annotations; all arrays have the same length n.

    Attributes:
        rgb: sRGB, 0..255.
        label: Index into `LABELS`.
        colour: Index into the keys of `BACKGROUNDS`.
        box: x, y, width, height in pixels.
    """

    rgb: UInt8[np.ndarray, "n 48 48 3"]
    label: Int[np.ndarray, "n"]
    colour: Int[np.ndarray, "n"]
    box: Float[np.ndarray, "n 4"]

    def __len__(self) -> int:
        return len(self.label)

    def images(self, indices: Int[torch.Tensor, "b"]) -> Float[torch.Tensor, "b 3 48 48"]:
        """Return pictures as a float32 batch in [-1, 1]."""
        return to_tensor(self.rgb[indices.numpy()])


def to_tensor(rgb: UInt8[np.ndarray, "b height width 3"]) -> Float[torch.Tensor, "b 3 height width"]:
    """Turn uint8 pictures into a float32 batch in [-1, 1]."""
    return torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def make_pool(sprites: list[Sprite], size: int, jitter: Jitter, seed: int) -> PicturePool:
    """Compose pictures of the concepts that have sprites; restricted ones are 1.5 times as frequent as others.

    Args:
        sprites: Art to draw from; concepts are equally frequent whatever number of renderings they have.
        size: Number of pictures.
        jitter: Limits of placement.
        seed: Seed of the draw.
    """
    rng = np.random.default_rng(seed)
    by_label = {label: [s for s in sprites if s.label == label] for label in LABELS}
    weights = np.array([_frequency(concept) if by_label[concept.label] else 0.0 for concept in CONCEPTS])
    labels = rng.choice(len(LABELS), size=size, p=weights / weights.sum())
    colours = rng.integers(len(BACKGROUNDS), size=size)
    names = list(BACKGROUNDS)
    rgb = np.empty((size, PICTURE_SIZE_PX, PICTURE_SIZE_PX, 3), np.uint8)
    box = np.empty((size, 4), np.float32)
    for i, (label, colour) in enumerate(zip(labels, colours, strict=True)):
        choices = by_label[LABELS[label]]
        picture = compose(choices[rng.integers(len(choices))], names[colour], jitter, rng)
        rgb[i], box[i] = picture.rgb, picture.box
    return PicturePool(rgb, labels.astype(np.int64), colours.astype(np.int64), box)


def _frequency(concept: Concept) -> float:
    return _RESTRICTED_WEIGHT if concept.kind == "restricted" else 1.0
