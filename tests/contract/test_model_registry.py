"""One set of tests for every implementation of the ModelRegistry port."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest

from safegen.adapters.memory_tracking import MemoryModelRegistry, MemoryTracker
from safegen.adapters.mlflow_registry import MlflowModelRegistry
from safegen.adapters.mlflow_session import MlflowSession
from safegen.adapters.mlflow_tracking import MlflowTracker
from safegen.errors import RegistryError
from safegen.ports import ModelRegistry, Tracker

_model_numbers = itertools.count()


@pytest.fixture(scope="module")
def session(mlflow_uri: str) -> MlflowSession:
    return MlflowSession(mlflow_uri)


@pytest.fixture(params=["memory", "mlflow"])
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ModelRegistry, Tracker]:
    if request.param == "memory":
        return MemoryModelRegistry(), MemoryTracker()
    session = request.getfixturevalue("session")
    return MlflowModelRegistry(session), MlflowTracker(session, artifact_root=str(tmp_path / "artifacts"))


@pytest.fixture
def registry(parts: tuple[ModelRegistry, Tracker]) -> ModelRegistry:
    return parts[0]


@pytest.fixture
def model() -> str:
    return f"miniature-{next(_model_numbers)}"


def register(registry: ModelRegistry, model: str, digest: str, **tags: str) -> str:
    return registry.register_candidate(
        model, "s3://models/x", tags={"checkpoint_digest": digest, **tags}, description="A candidate."
    )


def test_a_checkpoint_is_registered_once(registry: ModelRegistry, model: str) -> None:
    first = register(registry, model, "aa", decision="blocked")
    second = register(registry, model, "bb")
    again = register(registry, model, "aa", decision="pass")
    assert first != second
    assert again == first
    assert registry.tags(model, first) == {"checkpoint_digest": "aa", "decision": "pass"}


def test_a_candidate_without_digest_is_refused(registry: ModelRegistry, model: str) -> None:
    with pytest.raises(RegistryError, match="checkpoint_digest"):
        registry.register_candidate(model, "s3://models/x", tags={}, description="")


def test_an_alias_moves(registry: ModelRegistry, model: str) -> None:
    first, second = register(registry, model, "aa"), register(registry, model, "bb")
    registry.set_alias(model, "champion", first)
    registry.set_alias(model, "candidate", second)
    assert registry.version_of_alias(model, "champion") == first
    registry.set_alias(model, "champion", second)
    assert registry.version_of_alias(model, "champion") == second
    assert registry.version_of_alias(model, "candidate") == second


def test_an_alias_that_is_not_there_is_none(registry: ModelRegistry, model: str) -> None:
    assert registry.version_of_alias(model, "champion") is None
    register(registry, model, "aa")
    assert registry.version_of_alias(model, "champion") is None


def test_an_alias_cannot_point_to_nothing(registry: ModelRegistry, model: str) -> None:
    register(registry, model, "aa")
    with pytest.raises(RegistryError, match="99"):
        registry.set_alias(model, "champion", "99")
    assert registry.version_of_alias(model, "champion") is None


def test_tags_of_a_missing_version_are_an_error(registry: ModelRegistry, model: str) -> None:
    with pytest.raises(RegistryError, match=model):
        registry.tags(model, "1")


def test_a_logged_model_becomes_a_version(
    parts: tuple[ModelRegistry, Tracker], model: str, tmp_path: Path
) -> None:
    registry, tracker = parts
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    with tracker.start_run(experiment="e", run_name="r", tags={}, description="") as run:
        model_id = run.log_model_folder("candidate", folder, {})
    version = registry.register_candidate(model, model_id, tags={"checkpoint_digest": "aa"}, description="")
    assert registry.tags(model, version)["checkpoint_digest"] == "aa"


def test_a_version_is_linked_to_its_model_and_run(session: MlflowSession, model: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    tracker = MlflowTracker(session, artifact_root=str(tmp_path.parent / "linked"))
    with tracker.start_run(experiment="linked", run_name="r", tags={}, description="") as run:
        model_id = run.log_model_folder("candidate", tmp_path, {})
    version = MlflowModelRegistry(session).register_candidate(
        model, model_id, tags={"checkpoint_digest": "aa"}, description="Its **page**."
    )
    found = session.client.get_model_version(model, version)
    assert (found.run_id, found.description) == (run.id, "Its **page**.")
    assert Path(found.source.removeprefix("file://"), "model_index.json").is_file()
    links = json.loads(session.client.get_logged_model(model_id).tags["mlflow.modelVersions"])
    assert [(link["name"], str(link["version"])) for link in links] == [(model, version)]


def test_an_unreachable_server_fails_soon_and_in_our_words() -> None:
    session = MlflowSession("http://127.0.0.1:1", timeout_s=2, max_retries=1)
    began = time.monotonic()
    with pytest.raises(RegistryError, match=r"http://127\.0\.0\.1:1"):
        MlflowModelRegistry(session).version_of_alias("miniature", "champion")
    with pytest.raises(RegistryError, match="start the run"):
        MlflowTracker(session).start_run(experiment="e", run_name="r", tags={}, description="")
    assert time.monotonic() - began < 20


def test_a_damaged_database_is_a_registry_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(RegistryError, match=r"mlflow\.db"):
        MlflowSession(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.parametrize("uri", ["postgresql://db", "databricks", "./mlruns", ""])
def test_an_unknown_tracking_uri_is_refused(uri: str) -> None:
    with pytest.raises(RegistryError, match="sqlite:///"):
        MlflowSession(uri)
