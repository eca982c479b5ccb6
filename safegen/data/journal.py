"""What has been done already, kept in the object store: a map from keys to JSON texts that only grows.

Entries are appended in segments while work goes on, so that work which is killed keeps what it has done. Segments
are merged when there are many. A journal is a cache: a lost or damaged segment costs time, nothing else.
"""

from __future__ import annotations

import io
import logging
from typing import final

import pyarrow as pa
import pyarrow.parquet as pq

from safegen.domain.digests import sha256_bytes
from safegen.errors import ObjectNotFoundError
from safegen.ports import ObjectStore

_log = logging.getLogger(__name__)
_SCHEMA = pa.schema(
    [pa.field("key", pa.string(), nullable=False), pa.field("value", pa.string(), nullable=False)]
)
_MAX_SEGMENTS = 8


@final
class Journal:
    """A persistent map of texts. Not thread-safe; several processes may append at once."""

    def __init__(self, store: ObjectStore, prefix: str, *, segment_rows: int = 1000) -> None:
        """Read all segments under a prefix.

        Args:
            store: Where.
            prefix: Folder of the segments, ending in "/".
            segment_rows: How many entries may be lost when the process is killed.

        Raises:
            StorageError: The store failed.
        """
        self._store = store
        self._prefix = prefix
        self._segment_rows = segment_rows
        self._pending: dict[str, str] = {}
        self._entries: dict[str, str] = {}
        self._segments = [info.key for info in store.list(prefix)]
        for key in self._segments:
            self._entries.update(self._segment(key))

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries)

    def get(self, key: str) -> str | None:
        """Return the text under a key, or None."""
        return self._entries.get(key)

    def put(self, key: str, value: str) -> None:
        """Add an entry; it is stored with its segment.

        Raises:
            StorageError: The store failed.
        """
        self._entries[key] = value
        self._pending[key] = value
        if len(self._pending) >= self._segment_rows:
            self.flush()

    def flush(self) -> None:
        """Store what has been added, and merge the segments if there are many.

        Raises:
            StorageError: The store failed.
        """
        if self._pending:
            self._segments.append(self._write(self._pending))
            self._pending = {}
        if len(self._segments) > _MAX_SEGMENTS:
            merged = self._write(self._entries)
            for key in self._segments:
                if key != merged:
                    self._store.delete(key)
            self._segments = [merged]

    def _segment(self, key: str) -> dict[str, str]:
        try:
            table = pq.read_table(io.BytesIO(self._store.get(key)), schema=_SCHEMA)
            return dict(zip(table["key"].to_pylist(), table["value"].to_pylist(), strict=True))
        except ObjectNotFoundError:
            return {}  # merged by another process since it was listed
        except (pa.ArrowException, OSError, KeyError) as error:
            _log.warning("ignoring damaged journal segment %s: %s", key, error)
            return {}

    def _write(self, entries: dict[str, str]) -> str:
        buffer = io.BytesIO()
        table = pa.Table.from_arrays([pa.array(entries.keys()), pa.array(entries.values())], schema=_SCHEMA)
        pq.write_table(table, buffer, compression="zstd")
        data = buffer.getvalue()
        key = f"{self._prefix}{sha256_bytes(data)}.parquet"
        self._store.put(key, data)
        return key
