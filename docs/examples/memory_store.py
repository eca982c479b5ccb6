"""An object store in memory. What matters is `put`: without real conditional writes a store is not accepted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from safegen.domain.digests import sha256_bytes
from safegen.domain.object_key import check_key, check_prefix
from safegen.errors import ObjectNotFoundError, PreconditionFailedError, StorageError
from safegen.ports import ObjectInfo


class MemoryStore:
    """Keeps objects in a dictionary; implements `safegen.ports.ObjectStore`. An etag is the content's SHA-256."""

    uri = "memory://store"

    def __init__(self) -> None:
        """Begin empty."""
        self._objects: dict[str, bytes] = {}
        self._lock = Lock()

    def get(self, key: str) -> bytes:
        """Return an object's content; see `ObjectStore.get`."""
        check_key(key)
        try:
            return self._objects[key]
        except KeyError:
            raise ObjectNotFoundError(
                f"no object {key!r} in {self.uri}; check the key, or that it was written"
            ) from None

    def head(self, key: str) -> ObjectInfo | None:
        """Describe an object, or return None; see `ObjectStore.head`."""
        check_key(key)
        data = self._objects.get(key)
        return None if data is None else ObjectInfo(key, len(data), sha256_bytes(data))

    def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> ObjectInfo:
        """Write an object in one step; see `ObjectStore.put`. Check and write are one, under the lock."""
        with self._lock:
            stored = self.head(key)
            if if_absent and stored:
                raise PreconditionFailedError(f"object {key!r} exists already; expected it to be absent")
            if if_match is not None and (stored is None or stored.etag != if_match):
                raise PreconditionFailedError(
                    f"object {key!r} is not the one of etag {if_match}; read it again"
                )
            self._objects[key] = bytes(data)
        return ObjectInfo(key, len(data), sha256_bytes(data))

    def upload(self, key: str, path: Path) -> ObjectInfo:
        """Write a file's content; see `ObjectStore.upload`."""
        try:
            return self.put(key, path.read_bytes())
        except OSError as error:
            raise StorageError(f"cannot upload {path}: {error.strerror}; check the file") from error

    def download(self, key: str, path: Path) -> None:
        """Write an object's content to a file; see `ObjectStore.download`."""
        data = self.get(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        pending = path.with_name(f".{path.name}.part")
        pending.write_bytes(data)
        pending.replace(path)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield objects in byte order of their keys; see `ObjectStore.list`."""
        check_prefix(prefix)
        for key in sorted(self._objects, key=str.encode):
            if key.startswith(prefix) and (info := self.head(key)):
                yield info

    def delete(self, key: str) -> None:
        """Remove an object if it is there; see `ObjectStore.delete`."""
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)
