"""Fetches a base model from a prefix of an object store."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from safegen.diffusion.checkpoint import check_checkpoint_folder
from safegen.domain.checkpoint_files import PICKLE_SUFFIXES
from safegen.domain.digests import digest_json
from safegen.domain.object_key import check_key
from safegen.errors import DataError
from safegen.ports import ObjectStore


def fetch_stored_checkpoint(store: ObjectStore, prefix: str, folder: Path) -> Path:
    """Return the folder of a checkpoint in a store, fetched where these very objects are not there yet.

    Args:
        store: Where it is.
        prefix: Under which `model_index.json` lies.
        folder: Where models are kept, one folder each.

    Raises:
        DataError: There is nothing, or no checkpoint that may be loaded; one with a pickle is not even downloaded.
        StorageError: The store cannot answer.
    """
    root = f"{prefix.strip('/')}/"
    objects = {info.key.removeprefix(root): info for info in store.list(root)}
    where = f"{store.uri}/{root}"
    if not objects:
        raise DataError(f"base model {where}: there is no object; expected a checkpoint in diffusers layout")
    pickles = [name for name in objects if PurePosixPath(name).suffix.lower() in PICKLE_SUFFIXES]
    if pickles:
        raise DataError(
            f"base model {where}: {pickles[0]} is a pickle file; expected weights in safetensors only (a pickle can "
            "run code and is never loaded); convert the checkpoint first"
        )
    state = [[name, info.size_bytes, info.etag] for name, info in sorted(objects.items())]
    target = folder / digest_json([where, state])[:32]
    if target.is_dir():
        return target
    pending = target.with_name(f"{target.name}.part")
    shutil.rmtree(pending, ignore_errors=True)
    for name, info in objects.items():
        store.download(info.key, pending / check_key(name))
    check_checkpoint_folder(pending)
    pending.rename(target)
    return target
