"""Servers that several modules share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mlflow_servers import Guarded, guarded_server


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A running `mlflow server --app-name safegen`."""
    with guarded_server(tmp_path_factory.mktemp("guarded")) as server:
        yield server
