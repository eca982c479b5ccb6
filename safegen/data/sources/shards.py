"""What sources of shards have in common: which files they are, and how a whole shard is refused."""

from __future__ import annotations

from pathlib import Path

from safegen.data.sources.source import SourceItem, refusing, safe_name
from safegen.domain.dataset import Reason
from safegen.errors import DataError


def shard_paths(path: Path, suffix: str) -> list[Path]:
    """Return the shards that a path means: itself if it is a file, else the files in it with the suffix, sorted.

    Raises:
        DataError: There is none, or one of them is a symbolic link.
    """
    found = [path] if path.is_file() else sorted(path.glob(f"*{suffix}")) if path.is_dir() else []
    if not found:
        raise DataError(f"there are no {suffix} shards at {path}; give a shard or a folder of shards")
    for shard in found:
        if shard.is_symlink():
            raise DataError(f"shard {shard} is a symbolic link; copy the file instead")
    return found


def shard_fingerprint(shard: Path) -> str:
    """Return what changes whenever the shard may have changed."""
    status = shard.stat()
    return f"{status.st_size}:{status.st_mtime_ns}"


def broken_shard(shard: Path, error: Exception, rows_read: int) -> SourceItem:
    """Return the item that stands in quarantine for what could not be read of a shard."""
    detail = f"unreadable after {rows_read} entries: {' '.join(str(error).split())[:200]}"
    read = refusing(Reason.BROKEN_SHARD, detail)
    return SourceItem(safe_name(shard.name), read, "", shard_fingerprint(shard), concurrent=False)
