"""Where to cut a file into blobs, so that an edited checkpoint shares most of them with its predecessor.

A safetensors file is cut along its tensors: the header, then one chunk per large tensor and one per run of
small neighbours. The cuts depend on the header alone, never on the weights, so an edit changes exactly the
chunks that hold edited tensors. A run never mixes tensors of different attention kinds (`attn1`, `attn2`,
none): edits train one kind, and tensors of the others would be sent again for nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safegen.errors import DataError

PACK_BYTES = 1 << 20
"""Neighbouring small tensors share a chunk up to this size: thousands of tiny objects are slow to send."""

MAX_CHUNK_BYTES = 64 << 20
"""No chunk is larger, so that a few can be held in memory at once."""

_MAX_HEADER_BYTES = 100_000_000
_KIND = re.compile(r"(?:^|\.)(attn\d+)\.")


@dataclass(frozen=True)
class _Span:
    name: str
    start: int
    stop: int


def chunk_sizes(path: Path) -> tuple[int, ...]:
    """Return the lengths of the chunks that a file is stored in; they add up to the file's length.

    Args:
        path: Any file; one named `*.safetensors` is cut along its tensors.

    Raises:
        DataError: A safetensors file whose header is damaged.
    """
    try:
        size = path.stat().st_size
        if path.suffix != ".safetensors":
            return tuple(_split(size))
        header_bytes, spans = _read_header(path, size)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; expected a readable file") from error
    return (*_split(header_bytes), *(part for run in _runs(spans) for part in _split(run)))


def _runs(spans: list[_Span]) -> Iterator[int]:
    """Yield the length of each run of tensors that share a chunk."""
    length, kind = 0, ""
    for span in spans:
        size = span.stop - span.start
        if length and (length + size > PACK_BYTES or _kind(span.name) != kind):
            yield length
            length = 0
        length += size
        kind = _kind(span.name)
    if length:
        yield length


def _kind(name: str) -> str:
    match = _KIND.search(name)
    return match[1] if match else ""


def _split(size: int) -> Iterator[int]:
    while size > 0:
        yield min(size, MAX_CHUNK_BYTES)
        size -= MAX_CHUNK_BYTES


def _read_header(path: Path, size: int) -> tuple[int, list[_Span]]:
    """Read https://huggingface.co/docs/safetensors: u64 length, JSON header, the tensors without gaps."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
            raise DataError(
                f"{path} is no safetensors file: its header claims {length} bytes of {size}; export it again"
            )
        raw = file.read(length)
    try:
        header = cast("dict[str, Any]", json.loads(raw))
        spans = [
            _Span(name, int(entry["data_offsets"][0]), int(entry["data_offsets"][1]))
            for name, entry in header.items()
            if name != "__metadata__"
        ]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} is no safetensors file: its header cannot be read ({error!r}); export it again"
        ) from error
    spans.sort(key=lambda span: (span.start, span.stop))
    _check_contiguous(path, spans, size - 8 - length)
    return 8 + length, spans


def _check_contiguous(path: Path, spans: list[_Span], data_bytes: int) -> None:
    position = 0
    for span in spans:
        if span.start != position or span.stop < span.start:
            raise DataError(
                f"{path}: tensor {span.name!r} lies at {span.start}..{span.stop}, expected to start at {position}; "
                "export the file again"
            )
        position = span.stop
    if position != data_bytes:
        raise DataError(
            f"{path}: its tensors end at {position}, its data at {data_bytes}; export the file again"
        )
