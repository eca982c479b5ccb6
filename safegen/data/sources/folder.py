"""Images in a local folder and the folders below it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from safegen.data.decode import RefusedImageError
from safegen.data.sources.caption_table import CAPTION_FILES, MAX_TABLE_BYTES, parse_captions
from safegen.data.sources.source import SourceItem, refusing, safe_name
from safegen.domain.dataset import Reason, Role
from safegen.errors import DataError

# A link or a pipe that takes a file's place after it was listed is neither followed nor waited for.
_NO_LINK = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)


@final
@dataclass(frozen=True)
class FolderSource:
    """A folder. Symbolic links are refused, so nothing outside it can be read through it.

    Hidden files are not looked at. `captions.csv` or `metadata.csv` at its top gives the captions.

    Attributes:
        path: The folder.
        role: The role of all its images.
        label: Defaults to the folder's name.
    """

    path: Path
    role: Role
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "label", self.label or safe_name(self.path.absolute().name))

    def items(self, max_bytes: int) -> Iterator[SourceItem]:
        """Iterate over the files in the order of their names; see `Source.items`.

        Raises:
            DataError: The folder is missing or unreadable, or its table of captions is broken.
        """
        if not self.path.is_dir():
            raise DataError(f"there is no folder {self.path}; give a folder of images")
        captions = self._captions()
        for entry in _entries(str(self.path)):
            name = os.path.relpath(entry.path, self.path)
            if name in CAPTION_FILES:
                continue
            read, fingerprint = _offer(entry, max_bytes)
            caption = captions.get(name.replace(os.sep, "/"), "")
            yield SourceItem(
                safe_name(name.replace(os.sep, "/")), read, caption, fingerprint, concurrent=True
            )

    def _captions(self) -> dict[str, str]:
        for name in CAPTION_FILES:
            path = self.path / name
            if path.is_file() and not path.is_symlink():
                return parse_captions(_read_plain_file(str(path), MAX_TABLE_BYTES), str(path))
        return {}


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror}; expected a readable folder") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(entry.path)
        else:
            yield entry


def _offer(entry: os.DirEntry[str], max_bytes: int) -> tuple[Callable[[], bytes], str]:
    if entry.is_symlink():
        return refusing(Reason.SYMLINK, "a symbolic link; copy the file instead"), "symlink"
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return refusing(Reason.UNREADABLE, str(error.strerror)), "unreadable"
    if not stat.S_ISREG(status.st_mode):
        return refusing(Reason.NOT_A_FILE, "neither a file nor a folder"), "special"
    path = entry.path
    return lambda: _read_plain_file(
        path, max_bytes
    ), f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _read_plain_file(path: str, max_bytes: int) -> bytes:
    """Read at most one byte more than `max_bytes`."""
    try:
        with os.fdopen(os.open(path, _NO_LINK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise RefusedImageError(Reason.NOT_A_FILE, "neither a file nor a folder")
            return file.read(max_bytes + 1)
    except OSError as error:
        raise RefusedImageError(Reason.UNREADABLE, str(error.strerror)) from error
