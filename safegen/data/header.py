"""What the first bytes of an image say, read without a decoder.

A decoder may reserve memory for the size that a header claims before it can be asked for that size (WebP's does),
so format and size are looked at here first.
"""

from __future__ import annotations

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypheic", "HEIC"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG2000"),
    (0, b"8BPS", "PSD"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"%PDF", "PDF"),
)


def sniff_format(data: bytes) -> str | None:
    """Return the name of the format that the first bytes are the signature of, or None for no known image.

    >>> sniff_format(b"GIF89a....")
    'GIF'
    """
    for offset, signature, name in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature and (name != "WEBP" or data[:4] == b"RIFF"):
            return name
    return None


def claimed_size_px(data: bytes, image_format: str) -> tuple[int, int] | None:
    """Return (width, height) as the header of a PNG or WebP claims them, or None if it cannot be told.

    JPEG is left to the decoder, which reads a JPEG's header without reserving memory for the picture.
    """
    if image_format == "PNG" and len(data) >= 24 and data[12:16] == b"IHDR":
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if image_format == "WEBP":
        return _webp_size_px(data)
    return None


def is_cut_short(data: bytes, image_format: str) -> bool:
    """Return whether the file ends before its format says that it ends.

    Decoders forgive a missing end if all pixels are there. For untrusted input it means that something was cut.
    """
    if image_format == "PNG":
        return b"IEND\xaeB`\x82" not in data
    if image_format == "WEBP":
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    return b"\xff\xd9" not in data


def _webp_size_px(data: bytes) -> tuple[int, int] | None:
    chunk = data[12:16]
    if len(data) < 30:
        return None
    if chunk == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None
