"""Copies of the databases and buckets of a deployment, and back from a copy into empty ones.

Databases are copied first, then objects: what a database refers to was written before it, and nothing here deletes
objects, so every reference of the copy leads somewhere. A copy exists once its `backup.json` does.
"""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from os import defpath
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from safegen.domain.digests import sha256_file
from safegen.errors import DataError, StorageError
from safegen.ports import ObjectInfo, ObjectStore
from safegen.stack.identities import PROBE_PREFIX

_MANIFEST = "backup.json"
_SQLITE = "sqlite:///"


class Backup(BaseModel):
    """What a copy holds.

    Attributes:
        schema_version: 1.
        made_utc: When it was complete.
        files: SHA-256 of each file, by its path in the copy: `databases/NAME`, `objects/BUCKET/KEY`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    made_utc: datetime
    files: dict[str, str]


def make_backup(folder: Path, databases: Mapping[str, str], buckets: Mapping[str, ObjectStore]) -> Backup:
    """Copy databases and buckets, all of which may be in use, into a new folder.

    Args:
        folder: Must not exist, or be empty.
        databases: `sqlite:///PATH` or `postgresql://…`, by name.
        buckets: Opened as somebody who may read everything, by name.

    Raises:
        DataError: The folder holds something.
        StorageError: A database or a bucket cannot be read.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty; give a new folder, copies are never mixed")
    (folder / "databases").mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, uri in databases.items():
        _dump(uri, folder / "databases" / name)
    for name, store in buckets.items():
        for info in _kept(store):
            path = folder / "objects" / name / info.key
            path.parent.mkdir(parents=True, exist_ok=True)
            store.download(info.key, path)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    made = Backup(
        made_utc=datetime.now(UTC),
        files={path.relative_to(folder).as_posix(): sha256_file(path) for path in files},
    )
    (folder / _MANIFEST).write_text(made.model_dump_json(indent=2))
    return made


def read_backup(folder: Path) -> Backup:
    """Return what a copy holds, once every byte of it is proven.

    Raises:
        DataError: It is incomplete, or a file is missing or altered.
    """
    try:
        backup = Backup.model_validate_json((folder / _MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{folder} holds no complete backup ({_MANIFEST} is missing or damaged)") from error
    for name, digest in backup.files.items():
        path = folder / name
        if not path.is_file() or sha256_file(path) != digest:
            raise DataError(f"{path} is missing or altered, expected SHA-256 {digest}; take another backup")
    return backup


def restore_backup(folder: Path, databases: Mapping[str, str], buckets: Mapping[str, ObjectStore]) -> Backup:
    """Put a copy back into databases and buckets that are empty; servers must not run meanwhile.

    Args:
        folder: The copy.
        databases: Where each database of the copy goes, by name.
        buckets: Where each bucket's objects go, opened as somebody who may write everything.

    Raises:
        DataError: The copy is damaged, holds something for which no target is given, or a target is not empty.
        StorageError: A database or a bucket cannot be written.
    """
    backup = read_backup(folder)
    _require_targets(backup, databases, buckets)
    for name in backup.files:
        kind, place, *rest = name.split("/", 2)
        if kind == "databases":
            _load(databases[place], folder / name)
        else:
            buckets[place].upload(rest[0], folder / name)
    return backup


def _require_targets(
    backup: Backup, databases: Mapping[str, str], buckets: Mapping[str, ObjectStore]
) -> None:
    given = {f"databases/{name}" for name in databases} | {f"objects/{name}" for name in buckets}
    needed = {"/".join(name.split("/", 2)[:2]) for name in backup.files}
    if missing := needed - given:
        raise DataError(f"the backup holds {', '.join(sorted(missing))}, for which no target is given")
    for name, store in buckets.items():
        if (found := next(_kept(store), None)) is not None:
            raise DataError(f"bucket {name} ({store.uri}) holds {found.key}; restore into an empty one")


def _kept(store: ObjectStore) -> Iterator[ObjectInfo]:
    """Yield all objects but the traces of probes."""
    return (info for info in store.list("") if not info.key.startswith(f"{PROBE_PREFIX}/"))


def _dump(uri: str, target: Path) -> None:
    if uri.startswith(_SQLITE):
        source = Path(uri.removeprefix(_SQLITE))
        if not source.is_file():
            raise StorageError(f"there is no database {source}; nothing of it can be copied")
        with closing(sqlite3.connect(source)) as here, closing(sqlite3.connect(target)) as there:
            here.backup(there)
        return
    _run_on(uri, "pg_dump", "--format=custom", "--no-owner", f"--file={target}")


def _load(uri: str, source: Path) -> None:
    if uri.startswith(_SQLITE):
        target = Path(uri.removeprefix(_SQLITE))
        if target.exists():
            raise DataError(f"{target} exists; move it away, a restore replaces nothing")
        target.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(source)) as here, closing(sqlite3.connect(target)) as there:
            here.backup(there)
        return
    _run_on(uri, "pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", str(source))


def _run_on(uri: str, program: str, *arguments: str) -> None:
    """Run a program of PostgreSQL on a database; its password goes by the environment, where nobody lists it."""
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[0] != "postgresql":  # SQLAlchemy's URIs may name a driver
        raise DataError(f"database URI of kind {parts.scheme!r}; expected {_SQLITE}PATH or postgresql://…")
    connection = {
        "PGHOST": parts.hostname or "",
        "PGPORT": str(parts.port or 5432),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": parts.path.lstrip("/"),
    }
    command = [program, f"--dbname={connection['PGDATABASE']}", *arguments]
    try:
        ended = subprocess.run(
            command, env={"PATH": defpath, **connection}, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise StorageError(f"{program} is not installed; apt-get install postgresql-client") from error
    if ended.returncode:
        reason = " ".join(ended.stderr.split())[:300]
        raise StorageError(f"{program} failed: {reason}; see that the database answers and is of its version")
