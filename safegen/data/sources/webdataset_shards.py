"""Images in WebDataset shards: tar files whose members share a key, `1.jpg` beside `1.txt` or `1.json`."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import final

from safegen.data.decode import RefusedImageError
from safegen.data.sources.shards import broken_shard, shard_fingerprint, shard_paths
from safegen.data.sources.source import SourceItem, refusing, safe_caption, safe_name
from safegen.domain.dataset import Reason, Role

_MAX_TEXT_BYTES = 2**20
_CAPTION_SUFFIXES = ("txt", "caption", "text")
_SIDE_SUFFIXES = (*_CAPTION_SUFFIXES, "json", "cls", "__key__")


@final
@dataclass(frozen=True)
class WebDatasetSource:
    """A plain tar file, or all `*.tar` files of a folder.

    Nothing is ever unpacked: members are read in place, links and devices are refused, and names serve as labels
    only. Compressed tars are not taken, since they can be read neither at random nor in bounded memory.

    Attributes:
        path: File or folder.
        role: The role of all its images.
        label: Defaults to the path's name.
    """

    path: Path
    role: Role
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "label", self.label or safe_name(self.path.absolute().name))

    def items(self, max_bytes: int) -> Iterator[SourceItem]:
        """Iterate over the members that are not captions; see `Source.items`.

        Raises:
            DataError: There are no shards.
        """
        for shard in shard_paths(self.path, ".tar"):
            entries = 0
            try:
                fingerprint = shard_fingerprint(shard)
                with tarfile.open(shard, "r:") as tar:
                    for _, group in groupby(_files(tar), key=lambda member: _key(member.name)):
                        sample = list(group)
                        entries += len(sample)
                        caption = _caption(shard, sample)
                        for member in sample:
                            if _suffix(member.name) in _SIDE_SUFFIXES:
                                continue
                            read = _reader(shard, member, max_bytes)
                            name = safe_name(f"{shard.name}/{member.name}")
                            place = f"{fingerprint}:{member.offset_data}:{member.size}"
                            yield SourceItem(name, read, caption, place, concurrent=True)
                    _check_end(shard, tar)
            except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
                yield broken_shard(shard, error, entries)


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  it would remember millions
        if not member.isdir():
            yield member


def _check_end(shard: Path, tar: tarfile.TarFile) -> None:
    """Notice damage in the middle, which tarfile takes for the end."""
    with shard.open("rb") as file:
        file.seek(tar.offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"no valid header at byte {tar.offset}")


def _reader(shard: Path, member: tarfile.TarInfo, max_bytes: int) -> Callable[[], bytes]:
    path = PurePosixPath(member.name)
    if member.issym() or member.islnk():
        return refusing(Reason.SYMLINK, "a link inside a tar")
    if not member.isreg() or member.issparse():
        return refusing(Reason.NOT_A_FILE, "not a plain file inside a tar")
    if path.is_absolute() or ".." in path.parts:
        return refusing(Reason.OUTSIDE_SOURCE, "the member's name leads out of the tar")
    if member.size > max_bytes:
        return refusing(Reason.TOO_MANY_BYTES, f"{member.size} bytes; at most {max_bytes}")
    offset, size = member.offset_data, member.size
    return lambda: _read_at(shard, offset, size)


def _read_at(shard: Path, offset: int, size: int) -> bytes:
    try:
        with shard.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise RefusedImageError(Reason.UNREADABLE, str(error.strerror)) from error
    if len(data) != size:
        raise RefusedImageError(
            Reason.TRUNCATED, f"the shard ends after {len(data)} of the member's {size} bytes"
        )
    return data


def _caption(shard: Path, sample: list[tarfile.TarInfo]) -> str:
    for member in sample:
        suffix = _suffix(member.name)
        if suffix not in (*_CAPTION_SUFFIXES, "json") or not member.isreg() or member.size > _MAX_TEXT_BYTES:
            continue
        try:
            text = _read_at(shard, member.offset_data, member.size).decode("utf-8", errors="replace")
        except RefusedImageError:
            continue
        caption = _json_caption(text) if suffix == "json" else safe_caption(text)
        if caption:
            return caption
    return ""


def _json_caption(text: str) -> str:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(value, dict):
        return ""
    return next(
        (caption for key in ("caption", "text", "prompt") if (caption := safe_caption(value.get(key)))), ""
    )


def _key(name: str) -> str:
    folder, _, base = name.rpartition("/")
    return f"{folder}/{base.partition('.')[0]}"


def _suffix(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2].lower()
