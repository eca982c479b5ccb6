"""Captions beside images: `captions.csv` or `metadata.csv` (the form that image folders on the Hub have)."""

from __future__ import annotations

import csv
import io

from safegen.data.sources.source import safe_caption
from safegen.errors import DataError

CAPTION_FILES = ("captions.csv", "metadata.csv")
MAX_TABLE_BYTES = 256 * 2**20
_NAME_COLUMNS = ("file_name", "file", "path", "name", "image")
_CAPTION_COLUMNS = ("caption", "text", "prompt", "description")


def parse_captions(data: bytes, origin: str) -> dict[str, str]:
    """Return captions by file name as written in the table.

    Args:
        data: CSV in UTF-8 with a header: one of file_name, file, path, name, image; and one of caption, text,
            prompt, description.
        origin: Names the table in errors.

    Raises:
        DataError: Too large, not UTF-8, not CSV, or without these columns.
    """
    if len(data) > MAX_TABLE_BYTES:
        raise DataError(f"{origin} has more than {MAX_TABLE_BYTES} bytes; split the source")
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        name_column = next((name for name in _NAME_COLUMNS if name in header), None)
        caption_column = next((name for name in _CAPTION_COLUMNS if name in header), None)
        if name_column is None or caption_column is None:
            raise DataError(
                f"{origin} has columns {[name[:40] for name in header[:20]]}; expected one of {list(_NAME_COLUMNS)} "
                f"and one of {list(_CAPTION_COLUMNS)}"
            )
        return {row[name_column]: safe_caption(row[caption_column]) for row in reader if row[name_column]}
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {origin}: {error}; expected CSV in UTF-8") from error
