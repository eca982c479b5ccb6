"""The MLflow adapters against a real server, whose behaviour differs from a database file's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from safegen.adapters.mlflow_registry import MlflowModelRegistry
from safegen.adapters.mlflow_session import MlflowSession
from safegen.adapters.mlflow_tracking import MlflowTracker

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"{folder}/artifacts",
    ]
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}", process, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def wait_until_healthy(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")


def test_a_run_its_model_and_its_version_on_a_server(server_uri: str, tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "weights.safetensors").write_bytes(bytes(range(256)))
    session = MlflowSession(server_uri + "/")
    tracker, registry = MlflowTracker(session), MlflowModelRegistry(session)
    with tracker.start_run(experiment="safegen/mini/edit", run_name="r", tags={}, description="") as run:
        run.log_metrics({"explicit/nrr": 0.97}, 3)
        model_id = run.log_model_folder("candidate", tmp_path, {})
    tags = {"checkpoint_digest": "aa"}
    version = registry.register_candidate("mini", model_id, tags=tags, description="")
    registry.set_alias("mini", "champion", version)

    assert run.url.startswith(f"{server_uri}/#/experiments/")
    assert run.url.endswith(f"/runs/{run.id}")
    assert registry.register_candidate("mini", model_id, tags=tags, description="") == version
    assert registry.version_of_alias("mini", "champion") == version
    assert registry.version_of_alias("mini", "production") is None
    assert registry.version_of_alias("none", "champion") is None
    source = session.client.get_model_version_download_uri("mini", version)
    assert "artifacts" in source
    files = session.client.list_logged_model_artifacts(model_id, "unet")
    assert [(file.path, file.file_size) for file in files] == [("unet/weights.safetensors", 256)]
