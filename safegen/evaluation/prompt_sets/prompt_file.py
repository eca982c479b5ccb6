"""Reads the untrusted file of a prompt set into a table; no message quotes what the file says."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safegen.domain.digests import sha256_bytes
from safegen.errors import DataError
from safegen.evaluation.prompt_sets.settings import PromptFileSettings

MAX_ROWS = 1_000_000
NOT_TEXT = object()
"""Stands for a value that is neither text nor a number."""


@dataclass(frozen=True, slots=True)
class PromptTable:
    """A file's rows.

    Attributes:
        sha256: Of the file.
        columns: Values by column name, in lower case with spaces as underscores; as many in each.
        malformed: Rows that had another number of fields than the header, hence are in no column.
    """

    sha256: str
    columns: Mapping[str, Sequence[object]]
    malformed: int = 0

    @property
    def n_rows(self) -> int:
        """Rows of the file, malformed ones among them."""
        return len(next(iter(self.columns.values()), ())) + self.malformed


def read_prompt_file(settings: PromptFileSettings) -> PromptTable:
    """Read a file whole, and parse it if it has the digest that it should have.

    Raises:
        DataError: The file is missing, too large, of another digest, or not what its name says.
    """
    suffix = settings.file.suffix.lower()
    if suffix not in settings.suffixes:
        raise DataError(
            f"prompt set {settings.file}: ends in {suffix!r}; expected {' or '.join(settings.suffixes)}"
        )
    data = _read_bytes(settings)
    digest = sha256_bytes(data)
    if settings.sha256 not in (None, digest):
        raise DataError(
            f"prompt set {settings.file}: has SHA-256 {digest}, expected {settings.sha256}; get the pinned file again"
        )
    if suffix == ".parquet":
        from safegen.evaluation.prompt_sets.parquet_columns import parquet_columns

        return PromptTable(digest, parquet_columns(data, settings.file))
    text = _decoded(data, settings.file)
    if suffix == ".txt":
        lines = text.removesuffix("\n").split("\n")
        _check_row_count(len(lines), settings.file)
        return PromptTable(digest, {settings.columns.prompt[0]: lines})
    return _csv_table(digest, text, settings.file)


def column_names(header: Sequence[str], file: Path) -> list[str]:
    """Return the names of columns in the form in which they are compared.

    Raises:
        DataError: Two columns have one name.
    """
    names = ["_".join(name.strip().lower().split()) for name in header]
    twice = sum(count > 1 for count in Counter(names).values())
    if twice:
        raise DataError(
            f"prompt set {file}: {twice} column names appear more than once; expected each once, so remove the others"
        )
    return names


def _read_bytes(settings: PromptFileSettings) -> bytes:
    file, most = settings.file, settings.max_bytes
    if not file.is_file():
        raise DataError(f"prompt set {file}: no such file; docs/prompt-sets.md says where to get it")
    try:
        with file.open("rb") as opened:
            data = opened.read(most + 1)
    except OSError as error:
        raise DataError(
            f"prompt set {file}: cannot be read ({error.strerror}); expected a readable file"
        ) from error
    if len(data) > most:
        raise DataError(f"prompt set {file}: is larger than {most} bytes; raise max_bytes if it should be")
    return data


def _decoded(data: bytes, file: Path) -> str:
    if b"\0" in data:
        raise DataError(f"prompt set {file}: holds NUL bytes; expected UTF-8 text, so get the file again")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        # Not chained: the error carries the bytes.
        raise DataError(
            f"prompt set {file}: byte {error.start} is no UTF-8; expected UTF-8 text, so convert the file"
        ) from None


def _csv_table(digest: str, text: str, file: Path) -> PromptTable:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        header = next(reader, None)
        for row in reader:
            rows.append(row)
            _check_row_count(len(rows), file)
    except csv.Error:
        raise DataError(
            f"prompt set {file}: line {reader.line_num} is no CSV (quotes, or a field over "
            f"{csv.field_size_limit()} characters); mend or remove it"
        ) from None
    if header is None:
        raise DataError(f"prompt set {file}: is empty; expected a header line and rows")
    names = column_names(header, file)
    # csv gives an empty list for a blank line, which is no row.
    whole = [row for row in rows if len(row) == len(names)]
    malformed = sum(bool(row) and len(row) != len(names) for row in rows)
    columns = zip(*whole, strict=True) if whole else ((),) * len(names)
    return PromptTable(digest, dict(zip(names, columns, strict=True)), malformed)


def _check_row_count(count: int, file: Path) -> None:
    if count > MAX_ROWS:
        raise DataError(f"prompt set {file}: has over {MAX_ROWS} rows; expected at most as many, so split it")
