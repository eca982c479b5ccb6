"""The seams of safegen: one Protocol per kind of outside system.

Stages take these as plain arguments; `safegen.adapters` and `safegen.detectors` hold the implementations, and
`tests/contract` runs the same tests over every one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safegen.domain.detection import Detection, DetectorIdentity


@dataclass(frozen=True)
class ObjectInfo:
    """What a store knows about one stored object.

    Attributes:
        key: The object's key, relative to the store.
        size_bytes: Length of its content.
        etag: Opaque version token; equal tokens mean equal content, so it serves `if_match`.
    """

    key: str
    size_bytes: int
    etag: str


class ObjectStore(Protocol):
    """A flat map from keys to bytes with compare-and-swap on single objects.

    Keys are relative POSIX paths (`releases/sd/1/manifest.json`). Every method raises `StorageError` (or the subclass
    named) when the store cannot answer; no vendor exception leaves an implementation.
    """

    @property
    def uri(self) -> str:
        """Where the store is, without secrets: `s3://bucket` or `file:///folder`."""
        ...

    def get(self, key: str) -> bytes:
        """Return the whole content of an object.

        Raises:
            ObjectNotFoundError: No object has this key.
        """
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Describe an object without reading it, or return None when there is none."""
        ...

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> ObjectInfo:
        """Write an object in one atomic step.

        Args:
            key: Where to write.
            data: The whole content.
            if_absent: Write only when no object has this key yet.
            if_match: Write only when the stored object's etag is this one.

        Returns:
            The description of the object as written.

        Raises:
            PreconditionFailedError: `if_absent` or `if_match` did not hold; nothing was written.
        """
        ...

    def upload(self, key: str, path: Path) -> ObjectInfo:
        """Write a file's content under a key, replacing what is there; large files go in parallel parts."""
        ...

    def download(self, key: str, path: Path) -> None:
        """Write an object's content to a file that appears under its name only when complete.

        Raises:
            ObjectNotFoundError: No object has this key.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object whose key starts with `prefix`, in byte order of the keys."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; removing one that is not there is no error."""
        ...


class Detector(Protocol):
    """Finds labelled regions in pictures; thresholds are the caller's business."""

    @property
    def identity(self) -> DetectorIdentity:
        """Name, version, model digest and settings, as reports record them."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label this detector can return."""
        ...

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        """Detect regions in each picture.

        Args:
            images: RGB pictures, each (H, W, 3) uint8 in 0..255; sizes may differ.

        Returns:
            For each picture its detections after non-maximum suppression, highest score first, down to the
            detector's own floor.
        """
        ...
