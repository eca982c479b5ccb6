"""Fetches a base model from the Hugging Face Hub, at one commit, safetensors only."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safegen.diffusion.checkpoint import check_checkpoint_folder
from safegen.errors import DataError

_INDEX = "model_index.json"
_KINDS = ("json", "txt", "safetensors")
# Other copies of the same weights, which would double the download.
_VARIANTS = ("*.fp16.*", "*.bf16.*", "*.non_ema.*", "*/flax_*", "*/openvino_*", "*/rust_*")


def fetch_hub_checkpoint(
    repo: str, revision: str, folder: Path, *, cache: Path | None = None, endpoint: str | None = None
) -> Path:
    """Return the folder of a model of the Hub, fetched where it is not there yet.

    Only what `model_index.json` names is fetched, of it only settings, vocabularies and safetensors: a pickle is not
    even downloaded. With `HF_HUB_OFFLINE=1` the Hub's cache on this machine is all that is looked at.

    Args:
        repo: Such as "owner/name".
        revision: Full commit; a branch may hold other weights tomorrow.
        folder: Where models are kept, one folder each.
        cache: The Hub's own cache; None for the usual one.
        endpoint: Address of the Hub; None for the usual one.

    Raises:
        DataError: It cannot be fetched, or is no checkpoint that may be loaded.
    """
    target = folder / f"{repo.replace('/', '--')}-{revision}"
    if target.is_dir():
        return target
    snapshot = _snapshot(repo, revision, cache_dir=cache, endpoint=endpoint)
    pending = target.with_name(f"{target.name}.part")
    shutil.rmtree(pending, ignore_errors=True)
    for name in _names(snapshot):
        (pending / name).parent.mkdir(parents=True, exist_ok=True)
        _link(snapshot / name, pending / name)
    check_checkpoint_folder(pending)
    pending.rename(target)
    return target


def _snapshot(repo: str, revision: str, **places: Any) -> Path:  # Any: passed on to the Hub's client as it is
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HFValidationError

    asked: dict[str, Any] = {"repo_id": repo, "revision": revision, **places}
    try:
        index = Path(hf_hub_download(filename=_INDEX, **asked))
        patterns = [f"{part}/*.{kind}" for part in _components(index) for kind in _KINDS]
        return Path(
            snapshot_download(allow_patterns=[_INDEX, *patterns], ignore_patterns=list(_VARIANTS), **asked)
        )
    except (OSError, ValueError, HFValidationError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"base model {repo} at {revision}: cannot be fetched from the Hub ({reason}); check the id, the commit, "
            "the network and, for a gated model, HF_TOKEN"
        ) from error


def _components(index: Path) -> list[str]:
    content = json.loads(index.read_text(encoding="utf-8"))
    return sorted(name for name, kind in content.items() if isinstance(kind, list) and kind[0] is not None)


def _names(snapshot: Path) -> list[str]:
    """List what belongs to the checkpoint; a cache may hold more than was asked for now."""
    from huggingface_hub.utils import filter_repo_objects

    found = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
    patterns = [f"{part}/*.{kind}" for part in _components(snapshot / _INDEX) for kind in _KINDS]
    return sorted(
        filter_repo_objects(found, allow_patterns=[_INDEX, *patterns], ignore_patterns=list(_VARIANTS))
    )


def _link(source: Path, target: Path) -> None:
    """Give a cached file a second name; on another disk, copy it."""
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)
