"""Untrusted bytes: what is decoded, and every refusal with its reason."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from safegen.data.decode import DecodeLimits, RefusedImageError, decode_image
from safegen.domain.dataset import Reason
from safegen.errors import ConfigError

LIMITS = DecodeLimits(max_bytes=200_000, max_pixels=100_000, min_side_px=8)


def picture(width: int = 48, height: int = 32) -> np.ndarray:
    """A gradient with a red block in the top left corner."""
    ramp = np.linspace(0, 255, width, dtype=np.uint8)
    pixels = np.stack(
        [
            np.tile(ramp, (height, 1)),
            np.full((height, width), 90, np.uint8),
            np.tile(ramp[::-1], (height, 1)),
        ],
        -1,
    )
    pixels[: height // 4, : width // 4] = (255, 0, 0)
    return pixels


def encode(image: Image.Image | np.ndarray, image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        buffer, image_format, **options
    )
    return buffer.getvalue()


def reason_of(data: bytes, limits: DecodeLimits = LIMITS) -> Reason:
    with pytest.raises(RefusedImageError) as refusal:
        decode_image(data, limits)
    return refusal.value.reason


@pytest.mark.parametrize(
    ("image_format", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 95, "subsampling": 0}, 30),
    ],
)
def test_allowed_formats_give_the_picture(
    image_format: str, options: dict[str, object], tolerance: int
) -> None:
    decoded = decode_image(encode(picture(), image_format, **options), LIMITS)
    assert decoded.format == image_format
    assert decoded.pixels.dtype == np.uint8
    assert np.abs(decoded.pixels.astype(int) - picture()).max() <= tolerance


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.EMPTY),
        (b"\x89PNG" + b"x" * 200_001, Reason.TOO_MANY_BYTES),
        (b"#!/bin/sh\nexit\n", Reason.NOT_AN_IMAGE),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", Reason.NOT_AN_IMAGE),
        (encode(picture(), "GIF"), Reason.FORMAT_NOT_ALLOWED),
        (encode(picture(), "BMP"), Reason.FORMAT_NOT_ALLOWED),
        (encode(picture(), "TIFF"), Reason.FORMAT_NOT_ALLOWED),
        (encode(picture(400, 300)), Reason.TOO_MANY_PIXELS),
        (encode(picture(400, 300), "JPEG"), Reason.TOO_MANY_PIXELS),
        (encode(picture(400, 300), "WEBP"), Reason.TOO_MANY_PIXELS),
        (encode(picture(40, 7)), Reason.TOO_SMALL),
    ],
)
def test_refusals(data: bytes, reason: Reason) -> None:
    assert reason_of(data) is reason


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_cut_files_are_refused_even_if_others_allow_them(
    image_format: str, kept: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encode(noise, image_format)
    assert reason_of(data[: int(len(data) * kept)]) is Reason.TRUNCATED
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_animations_are_refused(image_format: str) -> None:
    frames = [Image.fromarray(np.full((32, 32, 3), value, np.uint8)) for value in (0, 120, 250)]
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:], duration=40)
    assert reason_of(data) is Reason.ANIMATED


def test_pixel_bomb_is_refused_by_its_header_alone() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )
    assert reason_of(bomb) is Reason.TOO_MANY_PIXELS
    webp = b"RIFF" + struct.pack("<I", 40) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4)
    webp += (16_382).to_bytes(3, "little") * 2 + bytes(20)
    assert reason_of(webp) is Reason.TOO_MANY_PIXELS


def test_limits_beyond_pillows_own_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_pixels"):
        DecodeLimits(max_pixels=10**9)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = picture()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encode(np.ascontiguousarray(stored), "PNG", exif=exif), LIMITS)
    np.testing.assert_array_equal(decoded.pixels, upright)


def test_broken_exif_is_ignored() -> None:
    data = encode(picture(), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    assert decode_image(data, LIMITS).pixels.shape == (32, 48, 3)


def test_alpha_lies_over_white() -> None:
    rgba = np.dstack([picture(), np.zeros((32, 48), np.uint8)])
    rgba[:, 24:, 3] = 255
    rgba[:, 12:24, 3] = 51  # a fifth
    pixels = decode_image(encode(rgba), LIMITS).pixels
    assert (pixels[:, :12] == 255).all()
    np.testing.assert_array_equal(pixels[:, 24:], picture()[:, 24:])
    expected = 255 - (255 - picture()[:, 12:24].astype(float)) / 5
    assert np.abs(pixels[:, 12:24] - expected).max() <= 1


def test_palette_with_transparency() -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([10, 200, 30, 200, 10, 30])
    image.paste(1, (0, 0, 8, 16))
    pixels = decode_image(encode(image, transparency=1), LIMITS).pixels
    assert (pixels[:, :8] == 255).all()
    assert (pixels[:, 8:] == (10, 200, 30)).all()


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (16, 1))
    pixels = decode_image(encode(Image.fromarray(grey)), LIMITS).pixels
    assert np.abs(pixels[..., 0].astype(float) - grey / 257).max() <= 1


def test_cmyk_jpeg() -> None:
    image = Image.new("CMYK", (32, 32), (0, 255, 255, 0))  # red ink
    red, green, blue = decode_image(encode(image, "JPEG", quality=95), LIMITS).pixels[16, 16]
    assert red > 200
    assert green < 60
    assert blue < 60


def test_profiles_are_converted_or_dropped() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    fitting = decode_image(encode(picture(), icc_profile=srgb), LIMITS)
    assert fitting.profile == "converted"
    assert np.abs(fitting.pixels.astype(int) - picture()).max() <= 2
    broken = decode_image(encode(picture(), icc_profile=b"no profile" * 20), LIMITS)
    assert broken.profile == "dropped"
    np.testing.assert_array_equal(broken.pixels, picture())
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert decode_image(encode(picture(), icc_profile=lab), LIMITS).profile == "dropped"


def test_random_damage_raises_nothing_but_refusals() -> None:
    random = np.random.default_rng(7)
    for image_format in ("PNG", "JPEG", "WEBP"):
        good = np.frombuffer(encode(picture(), image_format), np.uint8)
        for _ in range(60):
            bad = good.copy()
            places = random.integers(0, len(bad), 8)
            bad[places] = random.integers(0, 256, 8)
            with suppress(RefusedImageError):
                assert decode_image(bad.tobytes(), LIMITS).pixels.ndim == 3
