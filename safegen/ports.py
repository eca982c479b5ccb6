"""The seams of safegen: one Protocol per kind of outside system.

Stages take these as plain arguments; `safegen.adapters` and `safegen.detectors` hold the implementations, and
`tests/contract` runs the same tests over every one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from safegen.domain.detection import Detection, DetectorIdentity
from safegen.domain.release import SignedFiles


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

    def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> ObjectInfo:
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


class SigningKey(Protocol):
    """An EC P-256 key that signs, wherever its private half is; the seam for a key management service."""

    @property
    def public_key_pem(self) -> bytes:
        """The public half, as PEM (SubjectPublicKeyInfo)."""
        ...

    def sign(self, digest: bytes) -> bytes:
        """Sign a SHA-256 digest of 32 bytes with ECDSA and return the signature in DER.

        Raises:
            StorageError: The key cannot be reached or used.
        """
        ...


class Signer(Protocol):
    """Signs a release's files."""

    def sign(self, subject: str, digests: Mapping[str, str]) -> bytes:
        """Return the content of `signature.json`.

        Args:
            subject: Whose files: `miniature@3`.
            digests: SHA-256 of every file by its path in the pulled folder, the signature itself apart.

        Raises:
            StorageError: The key cannot be reached or used.
        """
        ...


class Verifier(Protocol):
    """Tells what a signature vouches for, by the public keys it trusts."""

    def verify(self, signature: bytes) -> SignedFiles:
        """Return what a `signature.json` vouches for.

        Raises:
            ReleaseRefusedError: It is no signature, or not one of a trusted key.
        """
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


class TrackedRun(Protocol):
    """One run in a tracker. As a context manager it ends FAILED on an exception, else FINISHED.

    Metrics may be held back for a moment and written together; all are written when the run ends.
    Every method raises `RegistryError` when the tracker cannot take what it is given.
    """

    @property
    def id(self) -> str:
        """The tracker's id of the run, for `resume_run_id` and `parent_run_id`."""
        ...

    @property
    def url(self) -> str:
        """Where a person looks at the run: a link, or the command that opens the UI."""
        ...

    def log_params(self, params: Mapping[str, str | float | int | bool]) -> None:
        """Record settings; a key that was recorded before must keep its value."""
        ...

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record measured values at a step; names are grouped by their first part up to a slash."""
        ...

    def log_image(self, key: str, image: NDArray[np.uint8], step: int = 0) -> None:
        """Record a picture, (H, W, 3) uint8 RGB, in a series named `key`."""
        ...

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file with the run, in the given folder."""
        ...

    def log_text(self, text: str, name: str) -> None:
        """Keep a text with the run, as a file of the given name."""
        ...

    def log_dataset(self, name: str, digest: str, uri: str, context: str) -> None:
        """Record a dataset version that the run reads, and what for (such as "training")."""
        ...

    def measure_model(self, model_id: str) -> None:
        """Record that this run measures a logged model; metrics recorded from now on are the model's, too."""
        ...

    def log_model_folder(self, name: str, folder: Path, metadata: Mapping[str, str]) -> str:
        """Keep a copy of a checkpoint folder as this run's model, file by file, without pickling.

        Returns:
            The model's id, for `ModelRegistry.register_candidate`.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tracker(Protocol):
    """Where runs are recorded."""

    def start_run(
        self,
        *,
        experiment: str,
        run_name: str,
        tags: Mapping[str, str],
        description: str,
        parent_run_id: str | None = None,
        resume_run_id: str | None = None,
        system_metrics_interval_s: float | None = None,
    ) -> TrackedRun:
        """Begin a run, or go on with one that ended or was killed.

        Args:
            experiment: Its name, made when it is new.
            run_name: What a person reads in a list of runs.
            tags: To search by.
            description: Markdown for the run's page.
            parent_run_id: The run under which this one is shown.
            resume_run_id: Go on with this run instead of beginning one; tags and description are updated.
            system_metrics_interval_s: Record CPU, memory, disk and GPU load this often; None for not at all.

        Raises:
            RegistryError: The tracker cannot be reached or refuses.
        """
        ...


class ModelRegistry(Protocol):
    """Versions of models by name, and the aliases that point to them.

    Every method raises `RegistryError` when the registry cannot be reached or refuses.
    """

    def register_candidate(
        self, model: str, model_id_or_uri: str, *, tags: Mapping[str, str], description: str
    ) -> str:
        """Make a version of a model, or find the one that stands for the same checkpoint.

        Args:
            model: The registered model's name, made when it is new.
            model_id_or_uri: What `TrackedRun.log_model_folder` returned, or where the checkpoint is.
            tags: Must hold `checkpoint_digest`. A version that has the same digest is not made again; its other
                tags and its description are brought up to date.
            description: Markdown for the version's page.

        Returns:
            The version.
        """
        ...

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Point an alias to a version, wherever it pointed before."""
        ...

    def version_of_checkpoint(self, model: str, digest: str) -> str | None:
        """Return the version that stands for a checkpoint, or None when there is no such version or model.

        Args:
            model: The registered model's name.
            digest: What was registered as `checkpoint_digest`.
        """
        ...

    def version_of_alias(self, model: str, alias: str) -> str | None:
        """Return the version that an alias points to, or None when there is no such alias or model."""
        ...

    def tags(self, model: str, version: str) -> dict[str, str]:
        """Return the tags of a version.

        Raises:
            RegistryError: There is no such version.
        """
        ...
