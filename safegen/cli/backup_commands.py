"""`safegen backup …`: copies of everything that a deployment cannot make again, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import typer

from safegen.cli.answer import Answer, answering
from safegen.cli.options import MINIATURE_RUN, ConfigOption
from safegen.config import RunConfig, load_config
from safegen.errors import ConfigError
from safegen.ports import ObjectStore

commands = typer.Typer(help="Copies of the databases and the buckets, and back.", no_args_is_help=True)
_DATABASE_VARIABLES = {
    "mlflow": "MLFLOW_BACKEND_STORE_URI",
    "prefect": "PREFECT_API_DATABASE_CONNECTION_URL",
}


@commands.command("make")
@answering
def make(folder: Path, config: ConfigOption = MINIATURE_RUN) -> Answer:
    """Copy MLflow's and Prefect's databases and both buckets into a new folder, while everything runs.

    With a local store these are the workspace's own. Else the databases are those of MLFLOW_BACKEND_STORE_URI and
    PREFECT_API_DATABASE_CONNECTION_URL, and AWS_… holds keys that may read both buckets.

    Example: safegen backup make /backups/2026-11-25 --config configs/miniature.toml
    """
    from safegen.stack.backup import make_backup

    run = load_config(config)
    with _buckets(run) as buckets:
        made = make_backup(folder, _databases(run, os.environ, must_exist=True), buckets)
    document = {"folder": str(folder), "made_utc": made.made_utc.isoformat(), "files": len(made.files)}
    return Answer(document, f"{len(made.files)} files are in {folder}")


@commands.command("restore")
@answering
def restore(folder: Path, config: ConfigOption = MINIATURE_RUN) -> Answer:
    """Put a copy back, every byte proven, into databases and buckets that are empty; stop the servers before.

    Example: safegen backup restore /backups/2026-11-25 --config configs/miniature.toml
    """
    from safegen.stack.backup import restore_backup

    run = load_config(config)
    with _buckets(run) as buckets:
        restored = restore_backup(folder, _databases(run, os.environ, must_exist=False), buckets)
    document = {
        "folder": str(folder),
        "made_utc": restored.made_utc.isoformat(),
        "files": len(restored.files),
    }
    return Answer(document, f"{len(restored.files)} files of {restored.made_utc:%Y-%m-%d %H:%M} UTC are back")


def _databases(run: RunConfig, environment: Mapping[str, str], *, must_exist: bool) -> dict[str, str]:
    if run.store.kind == "local":
        workspace = run.workspace.absolute()
        files = {"mlflow": workspace / "mlflow.db", "prefect": workspace / "stack" / "prefect" / "prefect.db"}
        return {name: f"sqlite:///{path}" for name, path in files.items() if path.exists() or not must_exist}
    found = {name: environment.get(variable, "") for name, variable in _DATABASE_VARIABLES.items()}
    if missing := [_DATABASE_VARIABLES[name] for name, uri in found.items() if not uri]:
        raise ConfigError(f"{' and '.join(missing)} not set; give the databases of the servers")
    return found


@contextmanager
def _buckets(run: RunConfig) -> Iterator[dict[str, ObjectStore]]:
    from safegen.adapters.s3_store import S3Credentials, S3Location, open_s3_store
    from safegen.bootstrap import local_server
    from safegen.stack import control
    from safegen.stack.identities import BUCKET, MLFLOW_BUCKET

    def opened(name: str, endpoint: str | None, keys: S3Credentials | None) -> ObjectStore:
        return open_s3_store(S3Location(name, endpoint), credentials=keys, probe_prefix=None)

    match run.store.kind:
        case "local":
            with local_server(run) as root:
                access = control.s3_access(root, "admin")
                endpoint, keys = access.location.endpoint_url, access.credentials
                yield {name: opened(name, endpoint, keys) for name in (BUCKET, MLFLOW_BUCKET)}
        case "s3":
            endpoint = run.store.endpoint_url
            yield {name: opened(name, endpoint, None) for name in (run.store.location, MLFLOW_BUCKET)}
        case "folder":
            raise ConfigError(
                f"the store is a folder ({run.store.location or run.workspace}); copy it as such"
            )
