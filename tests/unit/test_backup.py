"""Backups: everything comes back as it was, into empty places only, and a damaged copy not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from safegen.adapters.folder_store import FolderStore
from safegen.errors import DataError, StorageError
from safegen.stack.backup import make_backup, restore_backup


@pytest.fixture
def database(tmp_path: Path) -> str:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE runs (name TEXT)")
        connection.execute("INSERT INTO runs VALUES ('one')")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    store = FolderStore(tmp_path / "store")
    store.put("releases/m/1/manifest.json", b"{}")
    store.put("probes/left-over", b"x")
    return store


@pytest.fixture
def copy(tmp_path: Path, database: str, store: FolderStore) -> Path:
    make_backup(tmp_path / "copy", {"mlflow": database}, {"safegen": store})
    return tmp_path / "copy"


def rows(uri: str) -> list[tuple]:
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
        return connection.execute("SELECT name FROM runs").fetchall()


def restore(copy: Path, folder: Path, **more: str) -> tuple[Mapping[str, str], FolderStore]:
    databases = {"mlflow": f"sqlite:///{folder / 'back' / 'mlflow.db'}", **more}
    store = FolderStore(folder / "back" / "store")
    restore_backup(copy, databases, {"safegen": store})
    return databases, store


def test_everything_comes_back(copy: Path, tmp_path: Path) -> None:
    databases, store = restore(copy, tmp_path)
    assert rows(databases["mlflow"]) == [("one",)]
    assert [(info.key, store.get(info.key)) for info in store.list("")] == [
        ("releases/m/1/manifest.json", b"{}")
    ]


def test_a_database_in_use_is_copied_as_it_was_committed(
    tmp_path: Path, database: str, store: FolderStore
) -> None:
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as writer:
        writer.execute("INSERT INTO runs VALUES ('not committed')")
        make_backup(tmp_path / "other", {"mlflow": database}, {"safegen": store})
    assert rows(f"sqlite:///{tmp_path / 'other' / 'databases' / 'mlflow'}") == [("one",)]


def test_nothing_is_replaced(copy: Path, tmp_path: Path, database: str, store: FolderStore) -> None:
    with pytest.raises(DataError, match="is not empty"):
        make_backup(copy, {"mlflow": database}, {"safegen": store})
    with pytest.raises(DataError, match="restore into an empty one"):
        restore_backup(copy, {"mlflow": f"sqlite:///{tmp_path / 'new.db'}"}, {"safegen": store})
    with pytest.raises(DataError, match="a restore replaces nothing"):
        restore_backup(copy, {"mlflow": database}, {"safegen": FolderStore(tmp_path / "new")})
    with pytest.raises(DataError, match="holds databases/mlflow, for which no target"):
        restore_backup(copy, {}, {"safegen": FolderStore(tmp_path / "new")})


@pytest.mark.parametrize("damage", ["alter", "remove", "unfinished"])
def test_a_damaged_copy_is_refused_before_anything_is_written(
    copy: Path, tmp_path: Path, damage: str
) -> None:
    kept = copy / "objects" / "safegen" / "releases" / "m" / "1" / "manifest.json"
    match damage:
        case "alter":
            kept.write_text("[]")
        case "remove":
            kept.unlink()
        case "unfinished":
            (copy / "backup.json").unlink()
    with pytest.raises(DataError, match=r"missing or (altered|damaged)"):
        restore(copy, tmp_path)
    assert not (tmp_path / "back" / "mlflow.db").exists()


def test_a_database_that_is_not_there_is_an_error(tmp_path: Path, store: FolderStore) -> None:
    with pytest.raises(StorageError, match="there is no database"):
        make_backup(tmp_path / "copy", {"mlflow": f"sqlite:///{tmp_path / 'none.db'}"}, {"safegen": store})
    with pytest.raises(DataError, match="kind 'mysql'"):
        make_backup(tmp_path / "again", {"mlflow": "mysql://host/mlflow"}, {"safegen": store})
