"""The MLflow and Prefect servers on loopback, each with a SQLite database, without telemetry."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safegen.adapters.guard_settings import ARTIFACT_ROOTS, PUBLIC_KEYS
from safegen.adapters.s3_store import S3Credentials
from safegen.stack.identities import MLFLOW_BUCKET
from safegen.stack.service import Service, check_http


@dataclass(frozen=True)
class RegistrySettings:
    """What the MLflow server's registry rests on.

    Attributes:
        database: SQLite file of runs and registered models; None for one under the stack.
        public_keys: PEM files of those who may promote; without one, nobody may.
    """

    database: Path | None = None
    public_keys: Sequence[Path] = ()


def mlflow(
    folder: Path,
    port: int,
    *,
    registry: RegistrySettings,
    s3_endpoint_url: str,
    credentials: S3Credentials,
) -> Service:
    """Say how to run the MLflow server, guarded: it promotes what a signed decision proves, and nothing else.

    Args:
        folder: Its working directory, created when needed.
        port: A free loopback port.
        registry: Its database, which a flow may have written to before, and the keys it trusts.
        s3_endpoint_url: The object store for artifacts.
        credentials: The identity that may write the artifact bucket, and nothing else.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = registry.database or folder / "mlflow.db"
    database.parent.mkdir(parents=True, exist_ok=True)
    return Service(
        name="mlflow",
        command=(
            *(sys.executable, "-m", "mlflow", "server", "--app-name", "safegen"),
            *("--backend-store-uri", f"sqlite:///{database.absolute()}"),
            *("--artifacts-destination", f"s3://{MLFLOW_BUCKET}/artifacts"),
            *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        ),
        folder=folder,
        check=partial(check_http, port, "/health"),
        environment={
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            PUBLIC_KEYS: os.pathsep.join(str(path.absolute()) for path in registry.public_keys),
            ARTIFACT_ROOTS: f"s3://{MLFLOW_BUCKET}",  # where flows keep models that write to the database themselves
            "DO_NOT_TRACK": "1",
            "MLFLOW_S3_ENDPOINT_URL": s3_endpoint_url,
            "AWS_ACCESS_KEY_ID": credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
    )


def prefect(folder: Path, port: int) -> Service:
    """Say how to run the Prefect server.

    Args:
        folder: Its home: database, settings, leases.
        port: A free loopback port.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Service(
        name="prefect",
        command=(
            *(sys.executable, "-m", "prefect", "server", "start"),
            *("--host", "127.0.0.1", "--port", str(port)),
        ),
        folder=folder,
        check=partial(check_http, port, "/api/health"),
        environment={
            "PREFECT_HOME": str(folder),
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder.absolute() / 'prefect.db'}",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api",  # else the pages ask port 4200
            # Leases in memory would stay held for ever after a restart.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "DO_NOT_TRACK": "1",
        },
    )
