"""Reads emoji art from the installed Iconify packages and rasterises it.

The packages (npm ``@iconify-json/<rendering>``) hold one JSON file of SVG bodies each; `ART_PACKAGES` names them
with their licences. Twemoji takes part in no training: it is the held-out rendering on which quality is measured.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from safegen.errors import DataError
from safegen.miniature.concepts import CONCEPTS

ART_PACKAGES: dict[str, str] = {
    "noto": "Apache-2.0, Google Noto Emoji",
    "fluent-emoji": "MIT, Microsoft Fluent Emoji (colour)",
    "fluent-emoji-flat": "MIT, Microsoft Fluent Emoji (flat)",
    "openmoji": "CC-BY-SA-4.0, OpenMoji",
    "emojione": "CC-BY-4.0, EmojiOne",
    "noto-v1": "Apache-2.0, Google Noto Emoji (2016)",
    "twemoji": "CC-BY-4.0, Twemoji",
}
GENERATOR_RENDERINGS = ("noto", "fluent-emoji", "fluent-emoji-flat")
DETECTOR_RENDERINGS = (*GENERATOR_RENDERINGS, "openmoji", "emojione", "noto-v1")
HELD_OUT_RENDERING = "twemoji"

SPRITE_SIZE_PX = 96


@dataclass(frozen=True, slots=True)
class Sprite:
    """One emoji in one rendering.

    Attributes:
        label: Detector label of the concept.
        rendering: Key of `ART_PACKAGES`.
        rgba: Picture cropped to its visible part, sRGB with straight alpha, 0..255.
    """

    label: str
    rendering: str
    rgba: UInt8[np.ndarray, "height width 4"]


def load_sprites(art_dir: Path, renderings: tuple[str, ...]) -> list[Sprite]:
    """Rasterise every concept in the given renderings; a rendering may lack some concepts.

    Args:
        art_dir: Folder in which the art packages are installed (holds ``node_modules``).
        renderings: Keys of `ART_PACKAGES`.

    Raises:
        DataError: A package is not installed.
    """
    sprites: list[Sprite] = []
    for rendering in renderings:
        path = art_dir / "node_modules" / "@iconify-json" / rendering / "icons.json"
        if not path.is_file():
            raise DataError(f"emoji art: {path} is missing; run 'npm ci' in {art_dir}")
        package = json.loads(path.read_text())
        for concept in CONCEPTS:
            svg = _svg_of(package, concept.icon)
            if svg is not None:
                sprites.append(Sprite(concept.label, rendering, _rasterise(svg)))
    return sprites


def _svg_of(package: dict[str, Any], icon: str) -> str | None:
    name = package.get("aliases", {}).get(icon, {}).get("parent", icon)
    body = package["icons"].get(name)
    if body is None:
        return None
    box = (
        body.get("left", 0),
        body.get("top", 0),
        body.get("width", package.get("width", 16)),
        body.get("height", package.get("height", 16)),
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{SPRITE_SIZE_PX}" height="{SPRITE_SIZE_PX}" viewBox="{" ".join(map(str, box))}">{body["body"]}</svg>'
    )


def _rasterise(svg: str) -> UInt8[np.ndarray, "height width 4"]:
    import resvg_py  # only training needs it

    picture = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")
    return np.asarray(picture.crop(picture.getchannel("A").getbbox()))
