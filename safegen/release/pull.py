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
from safegen.domain.digests import sha256_file
from safegen.domain.release import (
    DECISION,
    MANIFEST,
    SIGNATURE,
    ReleaseChunk,
    ReleaseFile,
    ReleaseManifest,
)
from safegen.errors import (
    DamagedObjectError,
    DataError,
    ObjectNotFoundError,
    ReleaseRefusedError,
    StorageError,
)
from safegen.ports import ObjectStore, Verifier
from safegen.release.audit import require_last_move
from safegen.release.catalogue import Release, read_manifest, release_of
from safegen.release.channel import read_channel
from safegen.release.layout import release_key
from safegen.release.verify import require_signed, require_valid, verify_folder

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
    require_last_move(store, pointer)
    manifest = read_manifest(store, model, pointer.version)
    if manifest.digest != pointer.digest:
        raise StorageError(
            f"refused {model}@{channel_or_version}: release {pointer.version} has manifest {manifest.digest}, the "
            f"channel was moved to {pointer.digest}; do not use it"
        )
    return manifest


def pull(
    store: ObjectStore, model: str, channel_or_version: str, folder: Path, *, verifier: Verifier
) -> Release:
    """Fetch a release into `folder`: its checkpoint, and beside it manifest, decision, signature, card and materials.

    The signature is proven before anything large is fetched, and all of it again, byte by byte, before the folder
    appears under its name.

    Args:
        store: Where releases live.
        model: Name of the model.
        channel_or_version: A channel such as `production`, or a version such as `3`.
        folder: Where the release is to be; new or empty, or already holding exactly this release.
        verifier: Which keys are trusted.

    Returns:
        The release fetched.

    Raises:
        DataError: The folder holds something else, or cannot be written.
        ObjectNotFoundError: There is no such channel, release or blob.
        ReleaseRefusedError: The release is unsigned, altered, or not one that passed; the folder does not appear.
        StorageError: The store failed.
    """
    manifest = resolve(store, model, channel_or_version)
    return pull_manifest(store, manifest, folder, verifier=verifier)


def pull_manifest(
    store: ObjectStore, manifest: ReleaseManifest, folder: Path, *, verifier: Verifier
) -> Release:
    """Fetch the release that `resolve` returned; see `pull`."""
    require_signed(store, manifest, verifier)
    if _is_filled(folder):
        _require_same(folder, manifest, verifier)
        return release_of(store, manifest)
    with _hidden_folder(folder) as pending:
        try:
            for file in (*manifest.files, *manifest.documents):
                _fetch_file(store, file, pending)
        except DamagedObjectError as error:
            raise ReleaseRefusedError(f"refused {manifest.name}: {error}") from error
        for name in (DECISION, SIGNATURE, MANIFEST):
            (pending / name).write_bytes(store.get(release_key(manifest.model, manifest.version, name)))
        require_valid(verify_folder(pending, verifier), manifest.name)
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


def _write_at(handle: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, start)
        view, start = view[written:], start + written


def _is_filled(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _require_same(folder: Path, manifest: ReleaseManifest, verifier: Verifier) -> None:
    found = folder / MANIFEST
    if not found.is_file() or sha256_file(found) != manifest.digest:
        raise DataError(
            f"cannot pull {manifest.name} into {folder}: something else is there; give a new or empty folder"
        )
    require_valid(verify_folder(folder, verifier), manifest.name)


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
