"""One set of tests for every implementation of the Tracker port."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from safegen.adapters.memory_tracking import MemoryTracker
from safegen.adapters.mlflow_session import MlflowSession
from safegen.adapters.mlflow_tracking import MlflowTracker
from safegen.errors import RegistryError
from safegen.ports import TrackedRun, Tracker


class Readings(Protocol):
    """How a test looks at what was recorded, without going through the port."""

    def status(self, run_id: str) -> str: ...
    def params(self, run_id: str) -> dict[str, str]: ...
    def series(self, run_id: str, metric: str) -> list[tuple[int, float]]: ...
    def files(self, run_id: str) -> set[str]: ...
    def images(self, run_id: str) -> int: ...
    def datasets(self, run_id: str) -> list[tuple[str, str, str]]: ...
    def model_files(self, run_id: str, model_id: str) -> dict[str, bytes]: ...
    def tags(self, run_id: str) -> dict[str, str]: ...


class MemoryReadings:
    def __init__(self, tracker: MemoryTracker) -> None:
        self.runs = tracker.runs

    def status(self, run_id: str) -> str:
        return self.runs[run_id].status

    def params(self, run_id: str) -> dict[str, str]:
        return self.runs[run_id].params

    def series(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        return self.runs[run_id].metrics.get(metric, [])

    def files(self, run_id: str) -> set[str]:
        return set(self.runs[run_id].artifacts)

    def images(self, run_id: str) -> int:
        return sum(len(series) for series in self.runs[run_id].images.values())

    def datasets(self, run_id: str) -> list[tuple[str, str, str]]:
        return [(data.name, data.digest, data.context) for data in self.runs[run_id].datasets]

    def model_files(self, run_id: str, model_id: str) -> dict[str, bytes]:
        return self.runs[run_id].models[model_id].files

    def tags(self, run_id: str) -> dict[str, str]:
        return self.runs[run_id].tags


class MlflowReadings:
    def __init__(self, session: MlflowSession) -> None:
        self.client = session.client

    def status(self, run_id: str) -> str:
        return self.client.get_run(run_id).info.status

    def params(self, run_id: str) -> dict[str, str]:
        return self.client.get_run(run_id).data.params

    def series(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        return [(entry.step, entry.value) for entry in self.client.get_metric_history(run_id, metric)]

    def files(self, run_id: str) -> set[str]:
        return {file.path for file in self._walk(run_id, None) if not file.path.startswith("images/")}

    def images(self, run_id: str) -> int:
        return sum(file.path.endswith(".png") for file in self._walk(run_id, "images"))

    def datasets(self, run_id: str) -> list[tuple[str, str, str]]:
        import json

        inputs = self.client.get_run(run_id).inputs.dataset_inputs
        return [(i.dataset.name, json.loads(i.dataset.profile)["sha256"], i.tags[0].value) for i in inputs]

    def model_files(self, run_id: str, model_id: str) -> dict[str, bytes]:
        model = self.client.get_logged_model(model_id)
        assert model.status == "READY"
        assert model.source_run_id == run_id
        assert [output.model_id for output in self.client.get_run(run_id).outputs.model_outputs] == [model_id]
        root = Path(model.artifact_location.removeprefix("file://"))
        return {
            path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
        }

    def tags(self, run_id: str) -> dict[str, str]:
        return self.client.get_run(run_id).data.tags

    def _walk(self, run_id: str, folder: str | None) -> Iterator:
        for file in self.client.list_artifacts(run_id, folder):
            if file.is_dir:
                yield from self._walk(run_id, file.path)
            else:
                yield file


@dataclass
class Case:
    tracker: Tracker
    readings: Readings

    def start(self, **others: str | float) -> TrackedRun:
        return self.tracker.start_run(
            experiment="safegen/mini/edit",
            run_name="r1",
            tags={"seed": "7"},
            description="A *run*.",
            **others,
        )


@pytest.fixture(scope="module")
def mlflow_session(mlflow_uri: str) -> MlflowSession:
    return MlflowSession(mlflow_uri)


@pytest.fixture(scope="module")
def mlflow_case(mlflow_session: MlflowSession, tmp_path_factory: pytest.TempPathFactory) -> Case:
    artifacts = tmp_path_factory.mktemp("artifacts")
    return Case(MlflowTracker(mlflow_session, artifact_root=str(artifacts)), MlflowReadings(mlflow_session))


@pytest.fixture(params=["memory", "mlflow"])
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "mlflow":
        return request.getfixturevalue("mlflow_case")
    tracker = MemoryTracker()
    return Case(tracker, MemoryReadings(tracker))


def test_everything_that_is_logged_can_be_read_back(case: Case, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    with case.start() as run:
        assert case.readings.status(run.id) == "RUNNING"
        assert run.url
        run.log_params({"lr": 1e-4, "target": "exact", "ema": True})
        run.log_metrics({"explicit/nrr": 0.97, "explicit/nrr_low": 0.93}, 3)
        run.log_image("grids/explicit", np.zeros((8, 8, 3), np.uint8), 2)
        run.log_artifact(tmp_path / "report.json", "evaluation")
        run.log_text("hello", "notes/a.txt")
        run.log_dataset("unsafe", "ab" * 32, "s3://data/datasets/unsafe/manifest.parquet", "training")
    assert case.readings.status(run.id) == "FINISHED"
    assert case.readings.params(run.id) == {"lr": "0.0001", "target": "exact", "ema": "True"}
    assert case.readings.series(run.id, "explicit/nrr") == [(3, 0.97)]
    assert case.readings.images(run.id) == 1
    assert case.readings.files(run.id) == {"evaluation/report.json", "notes/a.txt"}
    assert case.readings.datasets(run.id) == [("unsafe", "ab" * 32, "training")]
    assert case.readings.tags(run.id)["seed"] == "7"


def train_until_it_breaks(run: TrackedRun) -> None:
    with run:
        run.log_metrics({"loss": 0.5}, 1)
        raise ZeroDivisionError


def test_a_run_that_raises_is_failed_and_keeps_its_metrics(case: Case) -> None:
    run = case.start()
    with pytest.raises(ZeroDivisionError):
        train_until_it_breaks(run)
    assert case.readings.status(run.id) == "FAILED"
    assert case.readings.series(run.id, "loss") == [(1, 0.5)]


def test_a_run_is_resumed_under_its_own_id(case: Case) -> None:
    with case.start() as first:
        first.log_metrics({"loss": 1.0}, 0)
    with case.start(resume_run_id=first.id) as second:
        assert second.id == first.id
        assert case.readings.status(first.id) == "RUNNING"
        second.log_metrics({"loss": 0.9}, 1)
    assert case.readings.status(first.id) == "FINISHED"
    assert case.readings.series(first.id, "loss") == [(0, 1.0), (1, 0.9)]


def test_resuming_what_is_not_there_is_refused(case: Case) -> None:
    with pytest.raises(RegistryError, match="no-such-run"):
        case.start(resume_run_id="no-such-run")


def test_a_parameter_cannot_change(case: Case) -> None:
    with case.start() as run:
        run.log_params({"lr": 1.0})
        run.log_params({"lr": 1.0})
        with pytest.raises(RegistryError, match="lr"):
            run.log_params({"lr": 2.0})


def test_a_checkpoint_folder_is_kept_byte_for_byte(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_bytes(b"{}")
    (folder / "unet" / "weights.safetensors").write_bytes(bytes(range(256)) * 100)
    with case.start() as run:
        model_id = run.log_model_folder("candidate", folder, {"checkpoint_digest": "cd" * 32})
    files = case.readings.model_files(run.id, model_id)
    files.pop("MLmodel", None)  # MLflow's own description, beside the checkpoint
    assert files == {
        "model_index.json": b"{}",
        "unet/weights.safetensors": bytes(range(256)) * 100,
    }


def test_a_missing_file_or_folder_is_named(case: Case, tmp_path: Path) -> None:
    with case.start() as run:
        with pytest.raises(RegistryError, match="gone"):
            run.log_artifact(tmp_path / "gone.json", "")
        with pytest.raises(RegistryError, match="gone"):
            run.log_model_folder("candidate", tmp_path / "gone", {})


def test_a_child_run_names_its_parent(mlflow_case: Case) -> None:
    with mlflow_case.start() as parent, mlflow_case.start(parent_run_id=parent.id) as child:
        pass
    assert mlflow_case.readings.tags(child.id)["mlflow.parentRunId"] == parent.id


def test_a_thousand_steps_cost_little(mlflow_session: MlflowSession, mlflow_case: Case) -> None:
    with mlflow_case.start() as run:
        began = time.perf_counter()
        for step in range(20):
            mlflow_session.client.log_metric(run.id, "one_by_one", 1.0, step=step)
        one_by_one_s = (time.perf_counter() - began) / 20
        began = time.perf_counter()
        for step in range(1000):
            run.log_metrics({"loss": 1.0 / (step + 1), "grad_norm": 2.0}, step)
        together_s = (time.perf_counter() - began) / 1000
    assert together_s < one_by_one_s / 4
    assert [step for step, _ in mlflow_case.readings.series(run.id, "loss")] == list(range(1000))


def test_system_metrics_are_recorded_beside_the_run(mlflow_case: Case) -> None:
    with mlflow_case.start(system_metrics_interval_s=0.2) as run:
        time.sleep(1.0)
    assert mlflow_case.readings.series(run.id, "system/cpu_utilization_percentage")


def test_a_sqlite_run_tells_how_to_open_the_ui(mlflow_case: Case) -> None:
    with mlflow_case.start() as run:
        assert run.url.startswith("mlflow ui --backend-store-uri sqlite:////")


def test_credentials_stay_out_of_the_environment(mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-callers-own")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    session = MlflowSession(
        mlflow_uri,
        s3_endpoint_url="http://127.0.0.1:1",
        s3_access_key_id="trainer",
        s3_secret_access_key="s3cr3t",
    )
    with session.call("look"):
        assert os.environ["AWS_ACCESS_KEY_ID"] == "trainer"
    assert os.environ["AWS_ACCESS_KEY_ID"] == "the-callers-own"
    assert "AWS_SECRET_ACCESS_KEY" not in os.environ
    assert "s3cr3t" not in repr(session)


def test_an_unreachable_artifact_store_is_a_registry_error(mlflow_uri: str) -> None:
    session = MlflowSession(
        mlflow_uri,
        s3_endpoint_url="http://127.0.0.1:1",
        s3_access_key_id="trainer",
        s3_secret_access_key="s3cr3t",
        max_retries=0,
    )
    run = MlflowTracker(session, artifact_root="s3://bucket/mlflow").start_run(
        experiment="in-s3", run_name="r", tags={}, description=""
    )
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1") as caught, run:
        run.log_text("hello", "a.txt")
    assert "s3cr3t" not in str(caught.value)


def test_sessions_of_other_keys_do_not_mix_in_one_process(mlflow_uri: str) -> None:
    seen: list[str] = []

    class Store(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.headers["Authorization"].split("Credential=")[1].split("/")[0])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for key in ("first", "second", "first"):  # as where keys are rotated under a long-lived worker
            session = MlflowSession(
                mlflow_uri,
                s3_endpoint_url=f"http://127.0.0.1:{server.server_port}",
                s3_access_key_id=key,
                s3_secret_access_key="s3cr3t",
            )
            run = MlflowTracker(session, artifact_root="s3://bucket/mlflow").start_run(
                experiment="keys", run_name=key, tags={}, description=""
            )
            with run:
                run.log_text("hello", "a.txt")
        server.shutdown()
    assert seen == ["first", "second", "first"]


def test_an_sqlite_tracker_needs_an_artifact_root(mlflow_uri: str) -> None:
    with pytest.raises(RegistryError, match="artifact root"):
        MlflowTracker(MlflowSession(mlflow_uri))


def test_every_run_has_the_trackers_tags_and_its_page_where_a_server_shows_the_database(
    mlflow_uri: str,
) -> None:
    session = MlflowSession(mlflow_uri)
    tracker = MlflowTracker(
        session, artifact_root="s3://b/x", run_tags={"prefect_flow_run": "f1"}, ui_url="http://127.0.0.1:9"
    )
    with tracker.start_run(experiment="shown", run_name="r", tags={"stage": "edit"}, description="") as run:
        tags = session.client.get_run(run.id).data.tags
    assert (tags["prefect_flow_run"], tags["stage"]) == ("f1", "edit")
    experiment = session.client.get_experiment_by_name("shown")
    assert experiment is not None
    assert run.url == f"http://127.0.0.1:9/#/experiments/{experiment.experiment_id}/runs/{run.id}"
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
