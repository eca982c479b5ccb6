"""Runs in MLflow."""

from __future__ import annotations

import json
import logging
import shlex
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, final
from urllib.parse import urlparse

import numpy as np
from numpy.typing import NDArray

from safegen.adapters.mlflow_pyfunc import MLMODEL, LoggedIdentity, describe_pyfunc
from safegen.adapters.mlflow_session import MlflowSession, has_code
from safegen.errors import RegistryError

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

_log = logging.getLogger(__name__)
_METRICS_PER_BATCH = 500  # MLflow refuses more than 1000
_PARAMS_PER_BATCH = 100  # MLflow's own limit
_FLUSH_AFTER_S = 5.0
_EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development"
}  # else the UI shows what is for chatbots
_DATASET_DIGEST_LENGTH = 36  # MLflow's own limit; the whole digest goes into the profile


@final
class MlflowTracker:
    """The `Tracker` port on an MLflow server or an SQLite file."""

    def __init__(
        self,
        session: MlflowSession,
        *,
        artifact_root: str | None = None,
        run_tags: Mapping[str, str] | None = None,
        ui_url: str | None = None,
    ) -> None:
        """Use a session.

        Args:
            session: The connection.
            artifact_root: Folder or `s3://…` under which new experiments keep their artifacts. None leaves it to the
                server; an SQLite file needs one.
            run_tags: Tags of every run, beside its own.
            ui_url: Address of a server that shows the session's database, where the session is no server itself.

        Raises:
            RegistryError: An SQLite session without an artifact root.
        """
        if artifact_root is None and not session.is_server:
            raise RegistryError(
                f"cannot track runs in {session.tracking_uri} without an artifact root: give a folder or s3://…"
            )
        self._session = session
        self._run_tags = dict(run_tags or {})
        self._ui_url = session.tracking_uri if session.is_server else ui_url
        self._artifact_root = None if artifact_root is None else _as_uri(artifact_root)

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
    ) -> MlflowRun:
        """Begin or resume a run; see `Tracker.start_run`.

        Raises:
            RegistryError: MLflow cannot be reached or refuses.
        """
        all_tags = {**self._run_tags, **tags, "mlflow.note.content": description}
        if parent_run_id is not None:
            all_tags["mlflow.parentRunId"] = parent_run_id
        with self._session.call(f"start the run {run_name!r} of {experiment}"):
            if resume_run_id is None:
                run_id = self._create(self._experiment_id(experiment), run_name, all_tags)
            else:
                run_id = self._resume(resume_run_id, run_name, all_tags)
        resumed = resume_run_id is not None
        return MlflowRun(
            self._session, run_id, system_metrics_interval_s, resumed=resumed, ui_url=self._ui_url
        )

    def _create(self, experiment_id: str, run_name: str, tags: dict[str, str]) -> str:
        return self._session.client.create_run(experiment_id, tags=tags, run_name=run_name).info.run_id

    def _resume(self, run_id: str, run_name: str, tags: dict[str, str]) -> str:
        from mlflow.entities import RunTag

        client = self._session.client
        client.update_run(run_id, status="RUNNING", name=run_name)
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        return run_id

    def _experiment_id(self, name: str) -> str:
        client = self._session.client
        found = client.get_experiment_by_name(name)
        if found is None:
            location = None if self._artifact_root is None else f"{self._artifact_root}/{name}"
            try:
                with self._session.call(f"make the experiment {name}"):
                    return client.create_experiment(name, location, _EXPERIMENT_TAGS)
            except RegistryError as error:
                if not has_code(error, "RESOURCE_ALREADY_EXISTS"):
                    raise
                found = client.get_experiment_by_name(name)  # another process was faster
        if found is None or found.lifecycle_stage != "active":
            raise RegistryError(f"the experiment {name} was deleted; restore it, or use another model name")
        return found.experiment_id


@final
class MlflowRun:
    """The `TrackedRun` port on an MLflow run."""

    def __init__(
        self,
        session: MlflowSession,
        run_id: str,
        system_metrics_interval_s: float | None,
        *,
        resumed: bool,
        ui_url: str | None,
    ) -> None:
        """Take over a run that is in state RUNNING; `MlflowTracker.start_run` makes these."""
        self._session = session
        self._id = run_id
        self._ui_url = ui_url
        with session.call(f"read the run {run_id}"):
            self._experiment_id: str = session.client.get_run(run_id).info.experiment_id
        self._held: list[Metric] = []
        self._measured: str | None = None
        self._flushed_at = time.monotonic()
        self._monitor = self._start_monitor(system_metrics_interval_s, resumed=resumed)

    @property
    def id(self) -> str:
        """MLflow's id of the run."""
        return self._id

    @property
    def url(self) -> str:
        """The run's page, or the command that opens the UI on the database."""
        if self._ui_url is not None:
            return f"{self._ui_url}/#/experiments/{self._experiment_id}/runs/{self._id}"
        return f"mlflow ui --backend-store-uri {shlex.quote(self._session.tracking_uri)}"

    def log_params(self, params: Mapping[str, str | float | int | bool]) -> None:
        """Record settings."""
        from mlflow.entities import Param

        entries = [Param(key, str(value)) for key, value in params.items()]
        with self._session.call(f"record parameters of the run {self._id}"):
            for start in range(0, len(entries), _PARAMS_PER_BATCH):
                self._session.client.log_batch(self._id, params=entries[start : start + _PARAMS_PER_BATCH])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record values; they are written together, every few seconds or when there are many."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        self._held.extend(
            Metric(key, float(value), now_ms, step, model_id=self._measured) for key, value in metrics.items()
        )
        if len(self._held) >= _METRICS_PER_BATCH or time.monotonic() - self._flushed_at > _FLUSH_AFTER_S:
            self._flush()

    def log_image(self, key: str, image: NDArray[np.uint8], step: int = 0) -> None:
        """Record a picture."""
        with self._session.call(f"record the picture {key!r} of the run {self._id}"):
            self._session.client.log_image(self._id, image, key=key, step=step, synchronous=True)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file."""
        with self._session.call(f"keep {path} with the run {self._id}"):
            self._session.client.log_artifact(self._id, str(path), folder or None)

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as a file."""
        with self._session.call(f"keep {name} with the run {self._id}"):
            self._session.client.log_text(self._id, text, name)

    def log_dataset(self, name: str, digest: str, uri: str, context: str) -> None:
        """Record a dataset version as an input of the run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        scheme = urlparse(uri).scheme
        dataset = Dataset(
            name=name,
            digest=digest[:_DATASET_DIGEST_LENGTH],
            source_type=scheme if scheme in ("s3", "http", "https") else "local",
            source=json.dumps({"uri": uri}),
            profile=json.dumps({"sha256": digest}),
        )
        with self._session.call(f"record the dataset {name!r} of the run {self._id}"):
            tags = [InputTag("mlflow.data.context", context)]
            self._session.client.log_inputs(self._id, [DatasetInput(dataset, tags)])

    def measure_model(self, model_id: str) -> None:
        """Make a logged model an input of the run, and the run's metrics the model's."""
        from mlflow.entities import LoggedModelInput

        with self._session.call(f"record that the run {self._id} measures {model_id}"):
            self._session.client.log_inputs(self._id, models=[LoggedModelInput(model_id)])
        self._measured = model_id

    def log_model_folder(self, name: str, folder: Path, metadata: Mapping[str, str]) -> str:
        """Keep a copy of a checkpoint folder as a LoggedModel, which is READY only when all of it has arrived."""
        if not folder.is_dir():
            raise RegistryError(
                f"cannot record {folder} as a model: no such folder; give the checkpoint's folder"
            )
        what = f"keep the model {name!r} with the run {self._id}"
        with self._session.call(what):
            model_id = self._new_model(name, dict(metadata))
        try:
            with self._session.call(what):
                self._session.client.log_model_artifacts(model_id, str(folder))
                if (folder / "model_index.json").is_file():
                    self._describe_pyfunc(model_id, dict(metadata))
        except BaseException:
            self._close_model(model_id, "FAILED")
            raise
        self._close_model(model_id, "READY")
        return model_id

    def __enter__(self) -> Self:
        """Return the run itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run: FAILED if there was an exception, which an unreachable MLflow does not replace."""
        try:
            self._end("FINISHED" if kind is None else "FAILED")
        except RegistryError as failure:
            if kind is None:
                raise
            _log.warning("the run %s stays open: %s", self._id, failure)

    def _end(self, status: str) -> None:
        if self._monitor is not None:
            with self._session.call(f"stop watching the run {self._id}"):
                self._monitor.finish()
        self._flush()
        with self._session.call(f"end the run {self._id}"):
            self._session.client.set_terminated(self._id, status=status)

    def _flush(self) -> None:
        held, self._held = self._held, []
        with self._session.call(f"record metrics of the run {self._id}"):
            for start in range(0, len(held), _METRICS_PER_BATCH):
                self._session.client.log_batch(self._id, metrics=held[start : start + _METRICS_PER_BATCH])
        self._flushed_at = time.monotonic()

    def _new_model(self, name: str, tags: dict[str, str]) -> str:
        from mlflow.entities import LoggedModelOutput

        client = self._session.client
        model = client.create_logged_model(
            self._experiment_id, name=name, source_run_id=self._id, tags=tags, model_type="diffusers"
        )
        client.log_outputs(self._id, [LoggedModelOutput(model.model_id, step=0)])
        return model.model_id

    def _describe_pyfunc(self, model_id: str, metadata: dict[str, str]) -> None:
        """Let `mlflow.pyfunc.load_model` draw with a checkpoint that is a whole pipeline."""
        with tempfile.TemporaryDirectory() as folder:
            description = Path(folder) / MLMODEL
            description.write_text(describe_pyfunc(LoggedIdentity(model_id, self._id, metadata)))
            self._session.client.log_model_artifact(model_id, str(description))

    def _close_model(self, model_id: str, status: Any) -> None:  # MLflow declares its own enumeration
        with self._session.call(f"finish the model {model_id}"):
            self._session.client.finalize_logged_model(model_id, status)

    def _start_monitor(self, interval_s: float | None, *, resumed: bool) -> SystemMetricsMonitor | None:
        if interval_s is None:
            return None
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)  # it announces its start and end
        with self._session.call(f"watch the run {self._id}"):
            monitor = SystemMetricsMonitor(
                self._id,
                sampling_interval=interval_s,  # pyright: ignore[reportArgumentType]  (it takes fractions)
                resume_logging=resumed,
                tracking_uri=self._session.tracking_uri,
            )
            monitor.start()
        return monitor


def _as_uri(root: str) -> str:
    return root.rstrip("/") if "://" in root else Path(root).absolute().as_uri()
