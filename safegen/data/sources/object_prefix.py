"""Images under a prefix of an object store (S3 or a folder that serves as one)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

from safegen.data.sources.caption_table import CAPTION_FILES, MAX_TABLE_BYTES, parse_captions
from safegen.data.sources.source import SourceItem, refusing, safe_name
from safegen.domain.dataset import Reason, Role
from safegen.errors import DataError
from safegen.ports import ObjectInfo, ObjectStore


@final
@dataclass(frozen=True)
class ObjectPrefixSource:
    """All objects under a prefix.

    `captions.csv` or `metadata.csv` directly under the prefix gives the captions.

    Attributes:
        store: Where they are; it may be another store than the one ingested into.
        prefix: Taken as a folder: "raw" means "raw/".
        role: The role of all its images.
        label: Defaults to the prefix.
    """

    store: ObjectStore
    prefix: str
    role: Role
    label: str = ""

    def __post_init__(self) -> None:
        prefix = self.prefix.strip("/")
        object.__setattr__(self, "prefix", f"{prefix}/" if prefix else "")
        object.__setattr__(self, "label", self.label or safe_name(prefix) or "store")

    def items(self, max_bytes: int) -> Iterator[SourceItem]:
        """Iterate over the objects in byte order of their keys; see `Source.items`.

        Raises:
            DataError: There is nothing under the prefix, or its table of captions is broken.
            StorageError: The store failed.
        """
        captions = self._captions()
        empty = True
        for info in self.store.list(self.prefix):
            name = info.key.removeprefix(self.prefix)
            if not name or name.endswith("/") or name in CAPTION_FILES:
                continue
            empty = False
            fingerprint = f"{info.size_bytes}:{info.etag}"
            yield SourceItem(
                safe_name(name),
                self._reader(info, max_bytes),
                captions.get(name, ""),
                fingerprint,
                concurrent=True,
            )
        if empty:
            raise DataError(
                f"there are no images under {self.prefix} in {self.store.uri}; check bucket and prefix"
            )

    def _reader(self, info: ObjectInfo, max_bytes: int) -> Callable[[], bytes]:
        if info.size_bytes > max_bytes:
            return refusing(Reason.TOO_MANY_BYTES, f"{info.size_bytes} bytes; at most {max_bytes}")
        return lambda: self.store.get(info.key)

    def _captions(self) -> dict[str, str]:
        for name in CAPTION_FILES:
            info = self.store.head(self.prefix + name)
            if info is None:
                continue
            origin = f"{self.prefix}{name} in {self.store.uri}"
            if info.size_bytes > MAX_TABLE_BYTES:
                raise DataError(f"{origin} has {info.size_bytes} bytes; at most {MAX_TABLE_BYTES}")
            return parse_captions(self.store.get(info.key), origin)
        return {}
