"""What a detector finds in image files that somebody names; a file that is not taken in is told, never skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from safegen.data.decode import DecodeLimits, RefusedImageError, decode_image
from safegen.domain.dataset import Reason
from safegen.domain.detection import Detection
from safegen.domain.digests import sha256_bytes
from safegen.errors import DataError, EvaluationError
from safegen.ports import Detector


@dataclass(frozen=True, slots=True)
class DetectedFile:
    """One image file and what was found in it.

    Attributes:
        path: As it was named.
        sha256: Of the file.
        width_px: Of the picture, upright.
        height_px: Of the picture, upright.
        detections: Raw, highest score first, down to the detector's own floor.
    """

    path: Path
    sha256: str
    width_px: int
    height_px: int
    detections: tuple[Detection, ...]


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """One file that is no image to take in.

    Attributes:
        path: As it was named.
        reason: As quarantine calls it.
        detail: The value found and what was expected.
    """

    path: Path
    reason: Reason
    detail: str


def detect_files(
    paths: Sequence[Path], detector: Detector, limits: DecodeLimits
) -> Iterator[DetectedFile | RefusedFile]:
    """Decode and judge files one after another, in their order.

    Args:
        paths: The files.
        detector: Who judges.
        limits: What is taken in.

    Yields:
        One value for each path.

    Raises:
        DataError: A path is missing, a folder or unreadable.
        EvaluationError: The detector failed.
    """
    for path in paths:
        data = _read(path, limits.max_bytes)
        try:
            pixels = decode_image(data, limits).pixels
        except RefusedImageError as error:
            yield RefusedFile(path, error.reason, error.detail)
            continue
        found = detector.detect([pixels])
        if len(found) != 1:
            raise EvaluationError(f"{detector.identity.name} answered for {len(found)} pictures; expected 1")
        height, width = pixels.shape[:2]
        yield DetectedFile(path, sha256_bytes(data), width, height, found[0])


def _read(path: Path, max_bytes: int) -> bytes:
    """Return a file's bytes, or just enough of them to be refused."""
    if path.is_dir():
        raise DataError(f"cannot read image {path}: it is a folder; name the files in it")
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError as error:
        raise DataError(
            f"cannot read image {path}: {error.strerror or error}; give the path of an image file"
        ) from error
