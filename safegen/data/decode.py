"""Untrusted bytes to an RGB picture, or a refusal with a reason.

Order of the checks: number of bytes, format by content, size in the header, animation, and only then pixels.
EXIF orientation is applied; palettes, grey, CMYK and 16 bit are converted; transparency is laid over white. An
embedded colour profile is applied (converted to sRGB), or dropped if it is broken or does not fit the picture.
What follows the end of an image in the same file (polyglots) is never stored, because pictures are encoded anew.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile

from safegen.data.header import claimed_size_px, is_cut_short, sniff_format
from safegen.domain.dataset import Reason
from safegen.errors import ConfigError, DataError

ALLOWED_FORMATS = ("PNG", "JPEG", "WEBP")
PILLOW_BOMB_PX = 89_478_485  # where Pillow itself begins to warn
Profile = Literal["none", "converted", "dropped"]

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_pillow_globals = threading.Lock()  # warning filters and LOAD_TRUNCATED_IMAGES belong to the process


class RefusedImageError(DataError):
    """An image that is not taken in.

    Attributes:
        reason: Why, as it will stand in quarantine.
        detail: The value found and what was expected.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"refused an image ({reason}): {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[RefusedImageError], tuple[Reason, str]]:
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What is taken in.

    Attributes:
        max_bytes: Of the file.
        max_pixels: Width times height, checked before a pixel is decoded.
        min_side_px: Of the shorter side.
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 25_000_000
    min_side_px: int = 32

    def __post_init__(self) -> None:
        if self.max_bytes < 1 or self.min_side_px < 1 or not 1 <= self.max_pixels <= PILLOW_BOMB_PX:
            raise ConfigError(
                f"decode limits {self} make no sense: expected positive numbers, max_pixels <= {PILLOW_BOMB_PX}"
            )


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A picture and what its file was.

    Attributes:
        pixels: [height, width, 3] uint8 RGB (sRGB), C-contiguous.
        format: "PNG", "JPEG" or "WEBP".
        profile: What became of an embedded colour profile.
    """

    pixels: NDArray[np.uint8]
    format: str
    profile: Profile


def decode_image(data: bytes, limits: DecodeLimits) -> DecodedImage:
    """Decode untrusted bytes.

    Args:
        data: A whole file.
        limits: What is taken in.

    Returns:
        The picture, upright, over white, in sRGB.

    Raises:
        RefusedImageError: With the reason; nothing else is raised, whatever the bytes are.
    """
    image_format = _check_outside(data, limits)
    with _strict_pillow():
        try:
            with Image.open(io.BytesIO(data), formats=(image_format,)) as image:
                _check_header(image, image_format, limits)
                image.load()
                rgb, profile = _to_rgb(image)
                rgb = _upright(image, rgb)
                return DecodedImage(np.array(rgb, dtype=np.uint8), image_format, profile)
        except RefusedImageError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise RefusedImageError(Reason.TOO_MANY_PIXELS, _one_line(error)) from error
        except Exception as error:  # a decoder fed hostile bytes may raise anything
            reason = Reason.TRUNCATED if "truncated" in str(error).lower() else Reason.CORRUPT
            raise RefusedImageError(reason, _one_line(error)) from error


def _check_outside(data: bytes, limits: DecodeLimits) -> str:
    if not data:
        raise RefusedImageError(Reason.EMPTY, "0 bytes")
    if len(data) > limits.max_bytes:
        raise RefusedImageError(Reason.TOO_MANY_BYTES, f"more than the {limits.max_bytes} bytes allowed")
    image_format = sniff_format(data)
    if image_format is None:
        raise RefusedImageError(Reason.NOT_AN_IMAGE, "no image signature; expected PNG, JPEG or WEBP")
    if image_format not in ALLOWED_FORMATS:
        raise RefusedImageError(Reason.FORMAT_NOT_ALLOWED, f"{image_format}; expected PNG, JPEG or WEBP")
    size = claimed_size_px(data, image_format)
    if size is not None:
        _check_size(size, limits)
    if is_cut_short(data, image_format):
        raise RefusedImageError(Reason.TRUNCATED, f"the {image_format} has no end")
    return image_format


def _check_size(size: tuple[int, int], limits: DecodeLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise RefusedImageError(
            Reason.TOO_MANY_PIXELS, f"{width}x{height}; at most {limits.max_pixels} pixels"
        )
    if min(width, height) < limits.min_side_px:
        raise RefusedImageError(
            Reason.TOO_SMALL, f"{width}x{height}; at least {limits.min_side_px} px a side"
        )


def _check_header(image: Image.Image, image_format: str, limits: DecodeLimits) -> None:
    _check_size(image.size, limits)
    # A JPEG with several pictures (MPO: depth or gain maps of cameras) is its first picture, not an animation.
    frames = getattr(image, "n_frames", 1) if image_format != "JPEG" else 1
    if frames > 1:
        raise RefusedImageError(Reason.ANIMATED, f"{frames} frames; expected a still picture")


def _to_rgb(image: Image.Image) -> tuple[Image.Image, Profile]:
    icc = image.info.get("icc_profile")
    image = _eight_bit(image)
    if image.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode not in ("L", "RGB", "RGBA", "CMYK"):
        image = image.convert("RGB")
    if isinstance(icc, bytes) and icc:
        image, profile = _to_srgb(image, icc)
    else:
        profile: Profile = "none"
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB"), profile


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey down; Pillow's own conversion would clip it to white."""
    if not image.mode.startswith("I"):
        return image
    grey = np.asarray(image).astype(np.int64)
    eight = Image.fromarray(((grey.clip(0, 65535) * 255 + 32767) // 65535).astype(np.uint8))
    if isinstance(clear := image.info.get("transparency"), int):
        eight.putalpha(Image.fromarray(np.where(grey == clear, 0, 255).astype(np.uint8)))
    return eight


def _to_srgb(image: Image.Image, icc: bytes) -> tuple[Image.Image, Profile]:
    """Convert the colours, keeping alpha as it is; a profile that cannot be used is dropped."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    colours = image.convert("RGB") if alpha is not None else image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        converted = ImageCms.profileToProfile(
            colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image, "dropped"
    if converted is None:
        return image, "dropped"
    if alpha is not None:
        converted.putalpha(alpha)
    return converted, "converted"


def _upright(image: Image.Image, rgb: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001  EXIF is a second untrusted format inside the first; broken, it says nothing about up
        return rgb
    return rgb if turn is None else rgb.transpose(turn)


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Make bomb warnings errors, other warnings silent, truncated files errors whatever others have set."""
    with _pillow_globals, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
