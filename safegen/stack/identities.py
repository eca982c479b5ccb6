"""Who may do what in the local object store, and the secrets that prove it."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from safegen.adapters.s3_store import S3Credentials
from safegen.errors import StorageError

IdentityName = Literal["admin", "trainer", "promoter", "reader", "mlflow"]
BUCKET = "safegen"
MLFLOW_BUCKET = "mlflow"
PROBE_PREFIX = "probes"
"""Where identities that can write prove that the store honours conditions."""

_READ = (f"Read:{BUCKET}", f"List:{BUCKET}")
_RIGHTS: dict[IdentityName, tuple[str, ...]] = {
    "admin": ("Admin", "Read", "Write", "List"),
    "trainer": (*_READ, *(f"Write:{BUCKET}/{top}/*" for top in ("blobs", "datasets", "runs", PROBE_PREFIX))),
    "promoter": (
        *_READ,
        *(f"Write:{BUCKET}/{top}/*" for top in ("blobs", "releases", "channels", "audit", PROBE_PREFIX)),
    ),
    "reader": _READ,
    "mlflow": tuple(f"{right}:{MLFLOW_BUCKET}" for right in ("Read", "Write", "List")),
}


class _Secret(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    access_key: str
    secret_key: str


class _Secrets(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    identities: dict[IdentityName, _Secret]


def make_secrets(path: Path) -> dict[IdentityName, S3Credentials]:
    """Return every identity's keys, creating them at random the first time.

    Args:
        path: The file that keeps them, readable by its owner alone.

    Raises:
        StorageError: The file is damaged or cannot be written.
    """
    if not path.exists():
        made = {
            name: _Secret(access_key=f"{name}-{secrets.token_hex(6)}", secret_key=secrets.token_urlsafe(32))
            for name in get_args(IdentityName)
        }
        write_private(path, _Secrets(identities=made).model_dump_json(indent=2).encode())
    return read_secrets(path)


def read_secrets(path: Path) -> dict[IdentityName, S3Credentials]:
    """Return every identity's keys.

    Raises:
        StorageError: There are none yet, or the file is damaged.
    """
    try:
        stored = _Secrets.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise StorageError(
            f"cannot read the object store's identities in {path}; start the stack, which creates them, or delete the "
            "damaged file to have new ones"
        ) from error
    return {name: S3Credentials(kept.access_key, kept.secret_key) for name, kept in stored.identities.items()}


def server_config(identities: dict[IdentityName, S3Credentials]) -> bytes:
    """Return the identities with their rights in the form that the server reads."""
    entries = [
        {
            "name": name,
            "credentials": [{"accessKey": keys.access_key, "secretKey": keys.secret_key}],
            "actions": list(_RIGHTS[name]),
        }
        for name, keys in identities.items()
    ]
    return json.dumps({"identities": entries}, indent=2).encode()


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, in one atomic step.

    Raises:
        StorageError: It cannot be written.
    """
    pending = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        handle = os.open(pending, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        pending.replace(path)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; check the folder's rights"
        ) from error
    finally:
        pending.unlink(missing_ok=True)
