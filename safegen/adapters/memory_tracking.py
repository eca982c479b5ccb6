"""Runs, model versions and aliases in memory: for tests, and for use without MLflow."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, final

import numpy as np
from numpy.typing import NDArray

from safegen.adapters.candidate_tags import CHECKPOINT_DIGEST, required_digest
from safegen.errors import RegistryError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecordedDataset:
    """A dataset version that a run read."""

    name: str
    digest: str
    uri: str
    context: str


@dataclass(frozen=True, slots=True)
class RecordedModel:
    """A checkpoint folder that a run kept; `files` maps relative paths to contents."""

    name: str
    metadata: dict[str, str]
    files: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class RecordedVersion:
    """A version of a registered model."""

    source: str
    tags: dict[str, str]
    description: str


@final
@dataclass
class MemoryRun:
    """The `TrackedRun` port as plain attributes.

    Attributes:
        id: Its number in the tracker.
        experiment: Its experiment.
        name: Its name.
        tags: Its tags.
        description: Its description.
        parent_run_id: The run it stands under.
        system_metrics_interval_s: As asked for; nothing is sampled.
        status: RUNNING until the context ends.
        params: Settings, as text.
        metrics: For each name the (step, value) pairs in the order of logging.
        images: For each key the (step, picture) pairs.
        artifacts: Contents by path.
        datasets: Inputs.
        models: Kept checkpoints by id.
        measured: Ids of the logged models that it measures.
    """

    id: str
    experiment: str
    name: str
    tags: dict[str, str]
    description: str
    parent_run_id: str | None
    system_metrics_interval_s: float | None = None
    status: Literal["RUNNING", "FINISHED", "FAILED"] = "RUNNING"
    params: dict[str, str] = field(default_factory=dict[str, str])
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict[str, list[tuple[int, float]]])
    images: dict[str, list[tuple[int, NDArray[np.uint8]]]] = field(
        default_factory=dict[str, list[tuple[int, NDArray[np.uint8]]]]
    )
    artifacts: dict[str, bytes] = field(default_factory=dict[str, bytes])
    datasets: list[RecordedDataset] = field(default_factory=list[RecordedDataset])
    models: dict[str, RecordedModel] = field(default_factory=dict[str, RecordedModel])
    measured: list[str] = field(default_factory=list[str])

    @property
    def url(self) -> str:
        """A name; nothing can be opened."""
        return f"memory:{self.experiment}/{self.id}"

    def log_params(self, params: Mapping[str, str | float | int | bool]) -> None:
        """Record settings.

        Raises:
            RegistryError: A key was recorded with another value.
        """
        for key, value in params.items():
            if self.params.get(key, str(value)) != str(value):
                raise RegistryError(
                    f"cannot change the parameter {key!r} of the run {self.id} from {self.params[key]} to {value}"
                )
            self.params[key] = str(value)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record values at a step."""
        for key, value in metrics.items():
            self.metrics.setdefault(key, []).append((step, float(value)))
            if math.isnan(value):
                _log.warning("the metric %s of the run %s is NaN at step %d", key, self.id, step)

    def log_image(self, key: str, image: NDArray[np.uint8], step: int = 0) -> None:
        """Record a copy of a picture."""
        self.images.setdefault(key, []).append((step, image.copy()))

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file.

        Raises:
            RegistryError: It cannot be read.
        """
        self.artifacts[f"{folder}/{path.name}" if folder else path.name] = _read(path)

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as a file."""
        self.artifacts[name] = text.encode()

    def log_dataset(self, name: str, digest: str, uri: str, context: str) -> None:
        """Record an input."""
        self.datasets.append(RecordedDataset(name, digest, uri, context))

    def measure_model(self, model_id: str) -> None:
        """Record which model the run measures."""
        self.measured.append(model_id)

    def log_model_folder(self, name: str, folder: Path, metadata: Mapping[str, str]) -> str:
        """Keep a copy of a checkpoint folder.

        Raises:
            RegistryError: There is no such folder.
        """
        if not folder.is_dir():
            raise RegistryError(
                f"cannot record {folder} as a model: no such folder; give the checkpoint's folder"
            )
        files = {
            path.relative_to(folder).as_posix(): _read(path) for path in folder.rglob("*") if path.is_file()
        }
        model_id = f"m-{self.id}-{len(self.models)}"
        self.models[model_id] = RecordedModel(name, dict(metadata), files)
        return model_id

    def __enter__(self) -> Self:
        """Return the run itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run: FAILED if there was an exception."""
        self.status = "FINISHED" if kind is None else "FAILED"


@final
class MemoryTracker:
    """The `Tracker` port that keeps everything in `runs`."""

    def __init__(self) -> None:
        """Begin with no runs."""
        self.runs: dict[str, MemoryRun] = {}

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
    ) -> MemoryRun:
        """Begin or resume a run; see `Tracker.start_run`.

        Raises:
            RegistryError: There is no run to resume.
        """
        if resume_run_id is None:
            number = str(len(self.runs))
            run = MemoryRun(
                number,
                experiment,
                run_name,
                dict(tags),
                description,
                parent_run_id,
                system_metrics_interval_s,
            )
            self.runs[run.id] = run
            return run
        if resume_run_id not in self.runs:
            raise RegistryError(f"cannot resume the run {resume_run_id}: there is none with this id")
        run = self.runs[resume_run_id]
        run.name, run.description, run.status = run_name, description, "RUNNING"
        run.system_metrics_interval_s = system_metrics_interval_s
        run.tags.update(tags)
        return run


@final
class MemoryModelRegistry:
    """The `ModelRegistry` port that keeps everything in dictionaries."""

    def __init__(self) -> None:
        """Begin with no models."""
        self.versions: dict[str, list[RecordedVersion]] = {}
        self.aliases: dict[tuple[str, str], str] = {}

    def register_candidate(
        self, model: str, model_id_or_uri: str, *, tags: Mapping[str, str], description: str
    ) -> str:
        """Make a version, or find the one with the same checkpoint digest; see `ModelRegistry`.

        Raises:
            RegistryError: No digest among the tags.
        """
        digest = required_digest(model, tags)
        versions = self.versions.setdefault(model, [])
        for number, known in enumerate(versions):
            if known.tags[CHECKPOINT_DIGEST] == digest:
                versions[number] = RecordedVersion(known.source, {**known.tags, **tags}, description)
                return str(number + 1)
        versions.append(RecordedVersion(model_id_or_uri, dict(tags), description))
        return str(len(versions))

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Point an alias to a version.

        Raises:
            RegistryError: There is no such version.
        """
        self.tags(model, version)
        self.aliases[model, alias] = version

    def version_of_checkpoint(self, model: str, digest: str) -> str | None:
        """Return the version that stands for a checkpoint, or None."""
        tagged = [version.tags[CHECKPOINT_DIGEST] for version in self.versions.get(model, [])]
        return str(tagged.index(digest) + 1) if digest in tagged else None

    def version_of_alias(self, model: str, alias: str) -> str | None:
        """Return the version that an alias points to, or None."""
        return self.aliases.get((model, alias))

    def tags(self, model: str, version: str) -> dict[str, str]:
        """Return the tags of a version.

        Raises:
            RegistryError: There is no such version.
        """
        versions = self.versions.get(model, [])
        if not version.isdecimal() or not 1 <= int(version) <= len(versions):
            raise RegistryError(
                f"cannot read version {version} of {model}: there are {len(versions)} versions"
            )
        return dict(versions[int(version) - 1].tags)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RegistryError(
            f"cannot keep {path} with the run: {error.strerror}; give a readable file"
        ) from error
