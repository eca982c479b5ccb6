"""Images in Parquet shards: one column of encoded images, optionally one of captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import pyarrow as pa
import pyarrow.parquet as pq

from safegen.data.decode import RefusedImageError
from safegen.data.sources.shards import broken_shard, shard_fingerprint, shard_paths
from safegen.data.sources.source import SourceItem, safe_caption, safe_name
from safegen.domain.dataset import Reason, Role
from safegen.errors import DataError

_ROWS_AT_A_TIME = 16


@final
@dataclass(frozen=True)
class ParquetSource:
    """A Parquet file, or all `*.parquet` files of a folder.

    Attributes:
        path: File or folder.
        role: The role of all its images.
        image_column: Binary, or a struct with a binary field "bytes" (the Hub's form).
        caption_column: Text; None for no captions.
        label: Defaults to the path's name.
    """

    path: Path
    role: Role
    image_column: str = "image"
    caption_column: str | None = None
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "label", self.label or safe_name(self.path.absolute().name))

    def items(self, max_bytes: int) -> Iterator[SourceItem]:
        """Iterate over the rows; the column of images is read only if an item is; see `Source.items`.

        Raises:
            DataError: There are no shards, or they lack a column or have another type in it.
        """
        del max_bytes  # a row is read whole; the decoder refuses it by its length
        for shard in shard_paths(self.path, ".parquet"):
            row = 0
            try:
                with _open(shard) as file:
                    self._check_columns(file, shard)
                    images = _ImageRows(shard, self.image_column)
                    fingerprint = shard_fingerprint(shard)
                    for row, caption in enumerate(self._captions(file)):
                        name = safe_name(f"{shard.name}/{row}")
                        yield SourceItem(
                            name,
                            lambda row=row, images=images: images.read(row),
                            caption,
                            fingerprint,
                            concurrent=False,
                        )
            except (pa.ArrowException, OSError) as error:
                yield broken_shard(shard, error, row)

    def _captions(self, file: pq.ParquetFile) -> Iterator[str]:
        if self.caption_column is None:
            yield from ("" for _ in range(file.metadata.num_rows))
            return
        for batch in file.iter_batches(4096, columns=[self.caption_column]):
            yield from map(safe_caption, batch.column(0).to_pylist())

    def _check_columns(self, file: pq.ParquetFile, shard: Path) -> None:
        schema = file.schema_arrow
        for column in filter(None, (self.image_column, self.caption_column)):
            if column not in schema.names:
                raise DataError(f"{shard} has no column {column!r}; it has {schema.names[:20]}")
        kind = schema.field(self.image_column).type
        if pa.types.is_struct(kind):
            kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else kind
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise DataError(
                f"column {self.image_column!r} of {shard} is {kind}; expected binary or struct<bytes: binary>"
            )
        text = schema.field(self.caption_column).type if self.caption_column else pa.string()
        if not (pa.types.is_string(text) or pa.types.is_large_string(text)):
            raise DataError(f"column {self.caption_column!r} of {shard} is {text}; expected string")


class _ImageRows:
    """Reads single rows of the image column, forwards, a few at a time, and only once one is asked for."""

    def __init__(self, shard: Path, column: str) -> None:
        self._shard = shard
        self._column = column
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._batch: pa.RecordBatch | None = None
        self._first_row = 0

    def read(self, row: int) -> bytes:
        try:
            value = self._value(row)
        except (pa.ArrowException, OSError) as error:
            raise RefusedImageError(Reason.BROKEN_SHARD, " ".join(str(error).split())[:200]) from error
        if isinstance(value, dict):
            value = value.get("bytes")
        if not isinstance(value, bytes):
            raise RefusedImageError(Reason.NO_BYTES, "the row holds no image bytes")
        return value

    def _value(self, row: int) -> object:
        batches = self._batches
        if batches is None:
            batches = self._batches = _open(self._shard).iter_batches(_ROWS_AT_A_TIME, columns=[self._column])
        while self._batch is None or row >= self._first_row + self._batch.num_rows:
            self._first_row += 0 if self._batch is None else self._batch.num_rows
            self._batch = next(batches, None)
            if self._batch is None:
                raise pa.ArrowInvalid(f"the shard ends before row {row}")
        return self._batch.column(0)[row - self._first_row].as_py()


def _open(shard: Path) -> pq.ParquetFile:
    return pq.ParquetFile(shard, buffer_size=2**20, pre_buffer=False)
