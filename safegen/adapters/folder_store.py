"""An `ObjectStore` on a plain folder: for unit tests and for users without an object storage server."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from safegen.domain.digests import sha256_bytes
from safegen.domain.object_key import check_key, check_prefix
from safegen.errors import ObjectNotFoundError, PreconditionFailedError, StorageError
from safegen.ports import ObjectInfo

_PRIVATE = ".store"
"""Folder inside the store for its lock and for unfinished files; no key may begin with it."""


@final
class FolderStore:
    """Keeps every object as one file whose path is its key.

    A write goes to a temporary file, is flushed to disk and then renamed, so a reader sees the old content or
    the new one, never a part. All writers, in any process of this machine, take one lock for the check and
    the rename, which makes `if_absent` and `if_match` a real compare-and-swap. An etag is the SHA-256 of the
    content.
    """

    def __init__(self, root: Path) -> None:
        """Open the store in `root`, creating the folder when needed.

        Raises:
            StorageError: The folder cannot be created or written.
        """
        self._root = root.absolute()
        self._pending = self._root / _PRIVATE / "pending"
        with _translated("open", str(root)):
            self._pending.mkdir(parents=True, exist_ok=True)
            self._lock_path = self._root / _PRIVATE / "lock"
            self._lock_path.touch()

    @property
    def uri(self) -> str:
        """Where the store is, as a `file://` URI."""
        return self._root.as_uri()

    def get(self, key: str) -> bytes:
        """Return the whole content of an object; see `ObjectStore.get`."""
        with _translated("read", key):
            return self._existing(key).read_bytes()

    def head(self, key: str) -> ObjectInfo | None:
        """Describe an object, or return None when there is none; see `ObjectStore.head`."""
        path = self._path(key)
        with _translated("describe", key):
            try:
                return _info(key, path) if path.is_file() else None
            except FileNotFoundError:  # deleted in between
                return None

    def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> ObjectInfo:
        """Write an object in one atomic step; see `ObjectStore.put`."""
        target = self._path(key)
        with _translated("write", key), _temporary_file(self._pending) as pending:
            _write_durably(pending, data)
            with self._locked():
                _check_condition(key, target, if_absent=if_absent, if_match=if_match)
                _move_into_place(pending, target)
        return ObjectInfo(key, len(data), sha256_bytes(data))

    def upload(self, key: str, path: Path) -> ObjectInfo:
        """Write a file's content under a key; see `ObjectStore.upload`."""
        target = self._path(key)
        with _translated("upload", key), _temporary_file(self._pending) as pending:
            shutil.copyfile(path, pending)
            info = _info(key, pending)
            with self._locked():
                _move_into_place(pending, target)
        return info

    def download(self, key: str, path: Path) -> None:
        """Write an object's content to a file; see `ObjectStore.download`."""
        source = self._existing(key)
        with _translated("download", key):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _temporary_file(path.parent) as pending:
                shutil.copyfile(source, pending)
                pending.replace(path)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with `prefix` in byte order; see `ObjectStore.list`."""
        check_prefix(prefix)
        start = self._root / prefix.rpartition("/")[0]
        with _translated("list", prefix):
            keys = [key for key in self._keys(start) if key.startswith(prefix)]
        for key in sorted(keys, key=str.encode):
            info = self.head(key)
            if info is not None:  # it may have been deleted since
                yield info

    def delete(self, key: str) -> None:
        """Remove an object if it is there; see `ObjectStore.delete`."""
        path = self._path(key)
        with _translated("delete", key), self._locked():
            path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        check_key(key)
        if key.split("/", 1)[0] == _PRIVATE:
            raise StorageError(
                f"refused object key {key!r}: {_PRIVATE}/ belongs to the store itself; use another name"
            )
        return self._root / key

    def _existing(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise ObjectNotFoundError(
                f"no object {key!r} in {self.uri}; check the key, or that it was ever written"
            )
        return path

    def _keys(self, folder: Path) -> Iterator[str]:
        for parent, folders, files in os.walk(folder):
            if Path(parent) == self._root and _PRIVATE in folders:
                folders.remove(_PRIVATE)
            for name in files:
                yield (Path(parent) / name).relative_to(self._root).as_posix()

    @contextmanager
    def _locked(self) -> Generator[None]:
        with self._lock_path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
            yield


@contextmanager
def _translated(action: str, what: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot {action} {what!r} in the folder store: {error.strerror or error}; "
            "check the folder's rights and free space, and that no key is another key's folder"
        ) from error


@contextmanager
def _temporary_file(folder: Path) -> Generator[Path]:
    path = folder / f".pending-{uuid.uuid4().hex}"  # not mkstemp, whose files nobody else may read
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _move_into_place(pending: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    pending.replace(target)


def _check_condition(key: str, target: Path, *, if_absent: bool, if_match: str | None) -> None:
    stored = _etag(target) if (if_absent or if_match is not None) and target.is_file() else None
    if if_absent and stored is not None:
        raise PreconditionFailedError(
            f"object {key!r} exists already (etag {stored}); expected it to be absent"
        )
    if if_match is not None and stored != if_match:
        raise PreconditionFailedError(
            f"object {key!r} has etag {stored or 'none (absent)'}, expected {if_match}; read it again"
        )


def _info(key: str, path: Path) -> ObjectInfo:
    return ObjectInfo(key, path.stat().st_size, _etag(path))


def _etag(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
