"""Reads the columns of a Parquet file, which may claim far more than it holds."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from safegen.errors import DataError
from safegen.evaluation.prompt_sets.prompt_file import MAX_ROWS, NOT_TEXT, column_names

_MAX_VALUES_BYTES = 1_000_000_000


def parquet_columns(data: bytes, file: Path) -> dict[str, list[object]]:
    """Return the columns of text and numbers; others hold `NOT_TEXT` in every row.

    Args:
        data: The file.
        file: Its name, for messages.

    Raises:
        DataError: It is no Parquet, holds text that is no UTF-8, or unpacks to too much.
    """
    try:
        # Read as dictionaries, a long text that a million rows share is kept once.
        schema = pq.read_schema(pa.BufferReader(data))
        names = column_names(schema.names, file)
        texts = [field.name for field in schema if _is_text(field.type)]
        opened = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
        _check_size(opened.metadata, file)
        table = opened.read()
        return {name: _values(table.column(index)) for index, name in enumerate(names)}
    except DataError:
        raise
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        NotImplementedError,
        MemoryError,
        OverflowError,
        pa.ArrowException,
    ) as error:
        # Not chained: a message of Arrow's may quote a row.
        raise DataError(
            f"prompt set {file}: is no readable Parquet ({type(error).__name__}); expected columns of text and numbers"
        ) from None


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _check_size(metadata: pq.FileMetaData, file: Path) -> None:
    unpacked = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    if metadata.num_rows > MAX_ROWS or unpacked > _MAX_VALUES_BYTES:
        raise DataError(
            f"prompt set {file}: unpacks to {metadata.num_rows} rows of {unpacked} bytes; expected at most "
            f"{MAX_ROWS} rows and {_MAX_VALUES_BYTES} bytes"
        )


def _values(column: pa.ChunkedArray) -> list[object]:
    values: list[object] = []
    for chunk in column.chunks:
        if isinstance(chunk, pa.DictionaryArray):
            shared = chunk.dictionary.to_pylist()
            values += [None if index is None else shared[index] for index in chunk.indices.to_pylist()]
        elif _is_text(chunk.type) or pa.types.is_integer(chunk.type) or pa.types.is_floating(chunk.type):
            values += chunk.to_pylist()
        else:
            values += [NOT_TEXT] * len(chunk)
    return values
