"""Content-addressed objects over any store: what is stored under a digest is exactly what has that digest."""

from __future__ import annotations

import uuid
from pathlib import Path

from safegen.domain.digests import sha256_bytes, sha256_file
from safegen.domain.object_key import blob_key
from safegen.errors import DamagedObjectError
from safegen.ports import ObjectStore


def put_blob(store: ObjectStore, content: bytes | Path) -> str:
    """Store content under its own digest, sending nothing when it is there already.

    An object of another length under the same digest can only be a damaged one, and is written again.

    Args:
        store: Where to write.
        content: The bytes themselves, or the file that holds them.

    Returns:
        The SHA-256 of the content, which is how to get it back.

    Raises:
        StorageError: The store could not be read or written.
        DataError: The file cannot be read.
    """
    digest = sha256_bytes(content) if isinstance(content, bytes) else sha256_file(content)
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    key = blob_key(digest)
    stored = store.head(key)
    if stored is None or stored.size_bytes != size:
        if isinstance(content, bytes):
            store.put(key, content)
        else:
            store.upload(key, content)
    return digest


def get_blob(store: ObjectStore, digest: str) -> bytes:
    """Return the content that has this digest.

    Raises:
        ObjectNotFoundError: The store has no such blob.
        DamagedObjectError: What the store returned has another digest.
        StorageError: The store failed.
    """
    data = store.get(blob_key(digest))
    _check_digest(sha256_bytes(data), digest, store)
    return data


def download_blob(store: ObjectStore, digest: str, path: Path) -> None:
    """Write the content that has this digest to a file, which appears only when its digest is proven.

    Raises:
        ObjectNotFoundError: The store has no such blob.
        DamagedObjectError: What the store returned has another digest.
        StorageError: The store failed.
    """
    pending = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        store.download(blob_key(digest), pending)
        _check_digest(sha256_file(pending), digest, store)
        pending.replace(path)
    finally:
        pending.unlink(missing_ok=True)


def _check_digest(found: str, expected: str, store: ObjectStore) -> None:
    if found != expected:
        raise DamagedObjectError(
            f"blob {expected} in {store.uri} is damaged: its content has SHA-256 {found}; "
            "delete the object and publish its source again"
        )
