"""Fetch a release into a folder that appears only when every byte of it is proven."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from safegen.blobs import get_blob
from safegen.domain.digests import sha256_file, tree_digest
from safegen.domain.release import ReleaseChunk, ReleaseFile, ReleaseManifest
from safegen.errors import DataError, ObjectNotFoundError, StorageError
from safegen.ports import ObjectStore
from safegen.release.catalogue import Release, read_manifest, release_of, require_passed_decision
from safegen.release.channel import read_channel

_PARALLEL_CHUNKS = 4


def resolve(store: ObjectStore, model: str, channel_or_version: str) -> ReleaseManifest:
    """Return the manifest that a channel name or a version number stands for.

    Raises:
        ObjectNotFoundError: There is no such channel or release.
        StorageError: The channel and the release do not belong together, or the store failed.
    """
    if channel_or_version.isdigit():
        return read_manifest(store, model, channel_or_version)
    pointer = read_channel(store, model, channel_or_version)
    if pointer is None:
        raise ObjectNotFoundError(
            f"{store.uri} has no channel {model}@{channel_or_version}; see which there are: safegen releases {model}"
        )
    manifest = read_manifest(store, model, pointer.version)
    if manifest.digest != pointer.digest:
        raise StorageError(
            f"refused {model}@{channel_or_version}: release {pointer.version} has manifest {manifest.digest}, the "
            f"channel was moved to {pointer.digest}; do not use it"
        )
    return manifest


def pull(store: ObjectStore, model: str, channel_or_version: str, folder: Path) -> Release:
    """Fetch a release's checkpoint into `folder`, verifying manifest, decision, every blob and every file.

    Args:
        store: Where releases live.
        model: Name of the model.
        channel_or_version: A channel such as `production`, or a version such as `3`.
        folder: Where the checkpoint is to be; new or empty, or already holding exactly this checkpoint.

    Returns:
        The release fetched.

    Raises:
        DataError: The folder holds something else, or cannot be written.
        ObjectNotFoundError: There is no such channel, release or blob.
        StorageError: Something does not have the digest it must have; the folder does not appear.
    """
    manifest = resolve(store, model, channel_or_version)
    require_passed_decision(store, manifest)
    if _is_filled(folder):
        _require_same(folder, manifest)
        return release_of(store, manifest)
    with _hidden_folder(folder) as pending:
        for file in manifest.files:
            _fetch_file(store, file, pending)
        if tree_digest(pending) != manifest.checkpoint_digest:
            raise StorageError(
                f"refused {model}@{manifest.version}: the folder fetched is not the checkpoint released"
            )
        pending.replace(folder)
    return release_of(store, manifest)


def _fetch_file(store: ObjectStore, file: ReleaseFile, folder: Path) -> None:
    target = folder / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    starts = [sum(chunk.size_bytes for chunk in file.chunks[:index]) for index in range(len(file.chunks))]
    with target.open("wb") as output, ThreadPoolExecutor(_PARALLEL_CHUNKS) as pool:

        def fetch(chunk: ReleaseChunk, start: int) -> None:
            _write_at(output.fileno(), get_blob(store, chunk.digest), start)

        list(pool.map(fetch, file.chunks, starts))
    if sha256_file(target) != file.sha256:
        raise StorageError(f"refused {file.path}: its blobs do not give the file released ({file.sha256})")


def _write_at(handle: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, start)
        view, start = view[written:], start + written


def _is_filled(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _require_same(folder: Path, manifest: ReleaseManifest) -> None:
    if not folder.is_dir() or tree_digest(folder) != manifest.checkpoint_digest:
        raise DataError(
            f"cannot pull {manifest.model}@{manifest.version} into {folder}: something else is there; give a new or "
            "empty folder"
        )


@contextmanager
def _hidden_folder(folder: Path) -> Generator[Path]:
    """Give a folder beside the final one, on the same disk, and remove what is left of it afterwards."""
    pending = folder.absolute().with_name(f".{folder.absolute().name}.{uuid.uuid4().hex}")
    try:
        pending.mkdir(parents=True)
        yield pending
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error.strerror or error}; give a folder that can be written"
        ) from error
    finally:
        shutil.rmtree(pending, ignore_errors=True)
