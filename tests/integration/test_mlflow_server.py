"""The MLflow adapters against a real server, whose behaviour differs from a database file's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from safegen.adapters.mlflow_registry import MlflowModelRegistry
from safegen.adapters.mlflow_session import MlflowSession
from safegen.adapters.mlflow_tracking import MlflowTracker
from tests.mlflow_servers import mlflow_server

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


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
