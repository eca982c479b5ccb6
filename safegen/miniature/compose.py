"""Composes captioned pictures: one emoji, slightly moved, turned and scaled, on a plain background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from safegen.miniature.art import Sprite
from safegen.miniature.captions import BACKGROUNDS

PICTURE_SIZE_PX = 48
_SUPERSAMPLE = 2


@dataclass(frozen=True, slots=True)
class Jitter:
    """How far a composed picture may differ from the plain one.

    Attributes:
        longest_side_px: Smallest and largest length of the emoji's longer side.
        turn_deg: Largest rotation to either side.
        shift_px: Largest move of the centre along each axis.
        mirror_rate: Chance of a mirrored emoji, 0..1.
    """

    longest_side_px: tuple[float, float] = (36.0, 43.0)
    turn_deg: float = 6.0
    shift_px: float = 2.0
    mirror_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Picture:
    """A composed picture and what it shows.

    Attributes:
        rgb: sRGB, 0..255.
        label: Detector label of the object.
        colour: Name of the background.
        box: x, y, width, height of the object in pixels.
    """

    rgb: UInt8[np.ndarray, "48 48 3"]
    label: str
    colour: str
    box: tuple[float, float, float, float]


def compose(sprite: Sprite, colour: str, jitter: Jitter, rng: np.random.Generator) -> Picture:
    """Put a sprite on a background.

    Args:
        sprite: The emoji.
        colour: Key of `BACKGROUNDS`.
        jitter: Limits of the random placement.
        rng: Source of randomness.
    """
    canvas_px = PICTURE_SIZE_PX * _SUPERSAMPLE
    emoji = Image.fromarray(sprite.rgba, "RGBA")
    if rng.random() < jitter.mirror_rate:
        emoji = emoji.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = rng.uniform(*jitter.longest_side_px) * _SUPERSAMPLE / max(emoji.size)
    emoji = emoji.resize((round(emoji.width * scale), round(emoji.height * scale)), Image.Resampling.LANCZOS)
    emoji = emoji.rotate(
        rng.uniform(-jitter.turn_deg, jitter.turn_deg), Image.Resampling.BICUBIC, expand=True
    )
    emoji = emoji.crop(emoji.getchannel("A").getbbox())
    shift = rng.uniform(-jitter.shift_px, jitter.shift_px, size=2) * _SUPERSAMPLE
    left = round((canvas_px - emoji.width) / 2 + shift[0])
    top = round((canvas_px - emoji.height) / 2 + shift[1])
    canvas = Image.new("RGB", (canvas_px, canvas_px), BACKGROUNDS[colour])
    canvas.paste(emoji, (left, top), emoji)
    rgb = np.asarray(canvas.resize((PICTURE_SIZE_PX, PICTURE_SIZE_PX), Image.Resampling.BOX))
    return Picture(rgb, sprite.label, colour, _visible_box(left, top, emoji.width, emoji.height))


def _visible_box(left: int, top: int, width: int, height: int) -> tuple[float, float, float, float]:
    limit = float(PICTURE_SIZE_PX)
    x0, y0 = max(0.0, left / _SUPERSAMPLE), max(0.0, top / _SUPERSAMPLE)
    x1, y1 = min(limit, (left + width) / _SUPERSAMPLE), min(limit, (top + height) / _SUPERSAMPLE)
    return (x0, y0, x1 - x0, y1 - y0)
