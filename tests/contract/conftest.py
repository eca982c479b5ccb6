"""Real servers for contract tests, started once per session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from safegen.stack.control import S3Access, s3_access, start, stop


@pytest.fixture(scope="session")
def object_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running SeaweedFS; the folder that its stack lives in."""
    root = tmp_path_factory.mktemp("stack")
    start(root, ("s3",))
    yield root
    stop(root)


@pytest.fixture(scope="session")
def trainer(object_server: Path) -> S3Access:
    """The trainer's way into it."""
    return s3_access(object_server, "trainer")


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite file for all, since MLflow takes seconds to make its schema."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/made/mlflow.db"
