"""Every secret that the services in `infra/` name, made at random into one folder that git ignores."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safegen.adapters.s3_store import S3Credentials
from safegen.adapters.signing_keys import open_key_pair
from safegen.errors import ConfigError
from safegen.stack.identities import make_secrets, server_config, write_private
from safegen.stack.inner_tls import write_server_certificate

DATABASE_USER, MLFLOW_USER, PREFECT_USER = "safegen", "trainer", "safegen"


@dataclass(frozen=True)
class Hosts:
    """Where services reach each other.

    Attributes:
        s3: Names and addresses that the object store's certificate holds for.
        database: Host and port of PostgreSQL, or the folder of its socket.
    """

    s3: Sequence[str] = ("s3", "localhost", "127.0.0.1")
    database: str = "postgres:5432"


def make_service_secrets(folder: Path, hosts: Hosts | None = None) -> tuple[Path, ...]:
    """Make the secrets that are missing; those that are there are kept, so that adding one changes no other.

    Args:
        folder: Receives them, readable by its owner alone.
        hosts: Where services reach each other; None for the names of `infra/compose`.

    Returns:
        The files.

    Raises:
        ConfigError: The folder cannot be made, or its release key is damaged.
        StorageError: A file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"cannot make {folder}: {error.strerror or error}; give another folder") from error
    where = hosts or Hosts()
    identities = make_secrets(folder / "identities.json")
    write_private(folder / "s3.json", server_config(identities))
    write_server_certificate(folder, where.s3)
    open_key_pair(folder)
    database, mlflow, prefect = (
        _password(folder / f"{name}-password") for name in ("postgres", "mlflow", "prefect")
    )
    write_private(folder / "mlflow-users", f"{MLFLOW_USER}:{_salted(mlflow)}\n".encode())
    users = f"{DATABASE_USER}:{database}@{where.database}"
    login = f"{PREFECT_USER}:{prefect}"
    _write_environment(folder / "s3-admin.env", _aws(identities["admin"]))
    _write_environment(
        folder / "mlflow.env",
        {"MLFLOW_BACKEND_STORE_URI": f"postgresql://{users}/mlflow", **_aws(identities["mlflow"])},
    )
    _write_environment(
        folder / "prefect.env",
        {
            "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{users}/prefect",
            "PREFECT_SERVER_API_AUTH_STRING": login,
            "PREFECT_API_AUTH_STRING": login,
        },
    )
    _write_environment(
        folder / "worker.env",
        {
            "PREFECT_API_AUTH_STRING": login,
            "MLFLOW_TRACKING_USERNAME": MLFLOW_USER,
            "MLFLOW_TRACKING_PASSWORD": mlflow,
            **_role("TRAINER", identities["trainer"]),
            **_role("PROMOTER", identities["promoter"]),
            **_role("READER", identities["reader"]),
        },
    )
    return tuple(sorted(path for path in folder.iterdir() if path.is_file()))


def read_environment(path: Path) -> dict[str, str]:
    """Return the variables of a file of `NAME=value` lines.

    Raises:
        ConfigError: It is missing.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read {path}; make it: safegen keys services {path.parent}") from error
    return dict(line.split("=", 1) for line in lines if line)


def _password(path: Path) -> str:
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32).encode())
    return path.read_text()


def _salted(password: str) -> str:
    """Return a password as nginx keeps it (RFC 2307, salted SHA-1 of 256 random bits)."""
    salt = secrets.token_bytes(8)
    digest = hashlib.sha1(password.encode() + salt, usedforsecurity=False).digest()
    return "{SSHA}" + base64.b64encode(digest + salt).decode()


def _aws(keys: S3Credentials) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}


def _role(name: str, keys: S3Credentials) -> dict[str, str]:
    return {
        f"SAFEGEN_{name}_ACCESS_KEY_ID": keys.access_key,
        f"SAFEGEN_{name}_SECRET_ACCESS_KEY": keys.secret_key,
    }


def _write_environment(path: Path, variables: dict[str, str]) -> None:
    write_private(path, "".join(f"{name}={value}\n" for name, value in variables.items()).encode())
