from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite file for all, since MLflow takes seconds to make its schema."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/made/mlflow.db"
