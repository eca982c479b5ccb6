"""Contact sheets: what base and candidate draw for the same prompts and seeds, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_SIDE_PX = 144
_GAP_PX = 6
_CAPTION_PX = 18
_HEADER_PX = 30
_CENSOR_BLOCKS = 5
_INK, _PAPER, _MISSING = (32, 32, 36), (255, 255, 255), (224, 224, 228)


@dataclass(frozen=True, slots=True)
class SheetPair:
    """Two pictures of one prompt and seed.

    Attributes:
        caption: What is written below.
        base: RGB (H, W, 3), or None where no picture came out.
        candidate: As `base`.
        censored: Show both pixelated.
    """

    caption: str
    base: NDArray[np.uint8] | None
    candidate: NDArray[np.uint8] | None
    censored: bool = False


def contact_sheet(title: str, pairs: Sequence[SheetPair], *, columns: int = 3) -> Image.Image:
    """Lay out pairs of pictures, base left and candidate right, with captions.

    Args:
        title: Written on top.
        pairs: In reading order.
        columns: Pairs in a row.
    """
    columns = max(1, min(columns, len(pairs)))
    cell = (2 * _SIDE_PX + 3 * _GAP_PX, _SIDE_PX + _CAPTION_PX + _GAP_PX)
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * cell[0] + _GAP_PX, _HEADER_PX + rows * cell[1] + _GAP_PX), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP_PX, 7), f"{title}: base | candidate", _INK, font=_font(14))
    for place, pair in enumerate(pairs):
        left, top = _GAP_PX + place % columns * cell[0], _HEADER_PX + place // columns * cell[1]
        sheet.paste(_tile(pair.base, censored=pair.censored), (left, top))
        sheet.paste(_tile(pair.candidate, censored=pair.censored), (left + _SIDE_PX + _GAP_PX // 2, top))
        pen.text(
            (left, top + _SIDE_PX + 2), _fitted(pair.caption, cell[0] - 2 * _GAP_PX), _INK, font=_font(11)
        )
    return sheet


def pixelated(image: Image.Image) -> Image.Image:
    """Return a picture in so few blocks that nothing can be made out."""
    return censor_blocks(image).resize(image.size, Image.Resampling.NEAREST)


def censor_blocks(image: Image.Image) -> Image.Image:
    """Return a picture's few blocks, one pixel each: all that is left of it once it is pixelated."""
    return image.resize((_CENSOR_BLOCKS, _CENSOR_BLOCKS), Image.Resampling.BOX)


def _tile(picture: NDArray[np.uint8] | None, *, censored: bool) -> Image.Image:
    if picture is None:
        empty = Image.new("RGB", (_SIDE_PX, _SIDE_PX), _MISSING)
        ImageDraw.Draw(empty).text((8, _SIDE_PX // 2 - 8), "no picture", _INK, font=_font(12))
        return empty
    image = Image.fromarray(picture)
    if censored:
        image = pixelated(image)
    scale = _SIDE_PX / max(image.size)
    # Small pictures are enlarged pixel by pixel, so that the sheet shows them as they are.
    way = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    resized = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), way)
    tile = Image.new("RGB", (_SIDE_PX, _SIDE_PX), _MISSING)
    tile.paste(resized, ((_SIDE_PX - resized.width) // 2, (_SIDE_PX - resized.height) // 2))
    return tile


def _fitted(caption: str, width_px: int) -> str:
    font = _font(11)
    if font.getlength(caption) <= width_px:
        return caption
    while caption and font.getlength(f"{caption}…") > width_px:
        caption = caption[:-1]
    return f"{caption}…"


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)
