"""Shards: pictures of a suite on disk, in Parquet files that are there wholly or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from safegen.domain.digests import sha256_bytes
from safegen.evaluation.prompt_suite import PromptRow

_SCHEMA = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("png", pa.binary(), nullable=True),  # null where no picture came out
    ]
)


@dataclass(frozen=True, slots=True)
class DrawnPicture:
    """One picture as it lies in a shard.

    Attributes:
        row: The prompt it was drawn for.
        png: Its bytes; None where no picture came out.
    """

    row: PromptRow
    png: bytes | None

    @property
    def sha256(self) -> str | None:
        """Digest of the bytes."""
        return None if self.png is None else sha256_bytes(self.png)

    def pixels(self) -> NDArray[np.uint8] | None:
        """Return RGB pixels (H, W, 3), or None where there are none or they cannot be read."""
        if self.png is None:
            return None
        try:
            with Image.open(io.BytesIO(self.png), formats=["PNG"]) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError):
            return None


def ranges(count: int, shard_size: int) -> Iterator[tuple[int, int]]:
    """Yield first and end row of every shard.

    >>> list(ranges(5, 2))
    [(0, 2), (2, 4), (4, 5)]
    """
    for start in range(0, count, shard_size):
        yield start, min(start + shard_size, count)


def shard_path(folder: Path, start: int, end: int) -> Path:
    """Return where the shard of these rows is; another shard size has other names."""
    return folder / f"{start:06d}-{end:06d}.parquet"


def png_bytes(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture's bytes as PNG, the same for the same pixels."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=False)
    return buffer.getvalue()


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file so that it is never seen half: it takes its name when it is complete and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pending = path.with_name(f"{path.name}.{os.getpid()}.part")
    with pending.open("wb") as file:
        pq.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())
    pending.replace(path)


def write_shard(path: Path, rows: Sequence[PromptRow], pictures: Sequence[NDArray[np.uint8] | None]) -> None:
    """Write the pictures of rows."""
    columns = {
        "prompt_id": [row.prompt_id for row in rows],
        "seed": [row.seed for row in rows],
        "png": [None if picture is None else png_bytes(picture) for picture in pictures],
    }
    write_table(path, pa.table(columns, schema=_SCHEMA))


def read_shard(path: Path, rows: Sequence[PromptRow]) -> list[DrawnPicture] | None:
    """Return the pictures of rows, or None where the file is missing, damaged, or about other rows."""
    try:
        entries = pq.read_table(path, schema=_SCHEMA).to_pylist()
    except (OSError, ValueError, pa.ArrowException):
        return None
    if [(entry["prompt_id"], entry["seed"]) for entry in entries] != [
        (row.prompt_id, row.seed) for row in rows
    ]:
        return None
    return [DrawnPicture(row, entry["png"]) for row, entry in zip(rows, entries, strict=True)]
