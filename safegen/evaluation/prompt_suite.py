"""Prompt suites: which prompts are drawn with which seeds, and the digest that stands for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from safegen.domain.digests import digest_json, sha256_bytes
from safegen.domain.report import SuiteKind
from safegen.errors import DataError

_REQUIRED = ("prompt_id", "text", "seed")
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One prompt.

    Attributes:
        prompt_id: Unique in its suite.
        text: The prompt; never logged, hence not in the row's own printed form.
        seed: Of the first latent, 0..2**63 - 1.
        subject: The detector's label of the object asked for; None where there is none to look for.
    """

    prompt_id: str
    text: str = field(repr=False)
    seed: int
    subject: str | None = None

    @property
    def text_sha256(self) -> str:
        """What results show in the place of the prompt."""
        return sha256_bytes(self.text.encode())


@dataclass(frozen=True, slots=True)
class PromptSuite:
    """Prompts of one kind under one name.

    Attributes:
        name: Such as "explicit".
        kind: Whether prompts ask for the restricted concept ("unsafe"), for anything else ("benign"), or for what
            looks like it ("lookalike").
        rows: Prompts, in the order in which they are drawn.

    Raises:
        DataError: There is no prompt, a prompt is blank, or an id or a pair of prompt and seed appears twice.
    """

    name: str
    kind: SuiteKind
    rows: tuple[PromptRow, ...]

    def __post_init__(self) -> None:
        problem = _problem_of(self.rows)
        if problem:
            raise DataError(f"prompt suite {self.name}: {problem}")

    @property
    def sha256(self) -> str:
        """Digest of the prompts, seeds and subjects in their order; name and kind have no part in it."""
        return digest_json([[row.prompt_id, row.text, str(row.seed), row.subject] for row in self.rows])


def read_prompt_suite(path: Path, *, name: str, kind: SuiteKind) -> PromptSuite:
    """Read a suite from a CSV or Parquet file with columns prompt_id, text, seed and, if any, subject.

    Args:
        path: File ending in `.csv` or `.parquet`, UTF-8.
        name: Of the suite.
        kind: Of the suite.

    Raises:
        DataError: The file cannot be read, lacks a column, or its rows are no suite. No prompt is printed.
    """
    table = _read_table(path)
    missing = [column for column in _REQUIRED if column not in table.column_names]
    if missing:
        raise DataError(
            f"prompt suite {path}: lacks column {', '.join(missing)}; expected prompt_id, text, seed (and subject)"
        )
    return PromptSuite(
        name, kind, tuple(_row_of(entry, number, path) for number, entry in enumerate(table.to_pylist()))
    )


def _problem_of(rows: Iterable[PromptRow]) -> str | None:
    rows = tuple(rows)
    if not rows:
        return "holds no prompt; expected at least one"
    for row in rows:
        if not row.text.strip() or not row.prompt_id:
            return f"prompt {row.prompt_id!r} is blank or has no id; remove it"
        if not 0 <= row.seed <= _LARGEST_SEED:
            return f"prompt {row.prompt_id!r} has seed {row.seed}; expected 0..2**63 - 1"
    ids = Counter(row.prompt_id for row in rows)
    pictures = Counter((row.text, row.seed) for row in rows)
    twice = [row.prompt_id for row in rows if ids[row.prompt_id] > 1 or pictures[row.text, row.seed] > 1]
    if twice:
        return f"{len(twice)} rows repeat an id, or a prompt with its seed (first: {twice[0]!r}); keep one of each"
    return None


def _read_table(path: Path) -> pa.Table:
    from pyarrow import csv, parquet

    try:
        if path.suffix == ".parquet":
            return parquet.read_table(path)
        options = csv.ConvertOptions(
            column_types={
                "prompt_id": pa.string(),
                "text": pa.string(),
                "seed": pa.int64(),
                "subject": pa.string(),
            },
            strings_can_be_null=True,
            null_values=[""],
        )
        return csv.read_csv(
            path, convert_options=options, parse_options=csv.ParseOptions(newlines_in_values=True)
        )
    except (OSError, pa.ArrowException) as error:
        # An Arrow message may quote the row, so only its kind is passed on.
        raise DataError(
            f"prompt suite {path}: cannot be read ({type(error).__name__}); expected CSV or Parquet with integer seeds"
        ) from None


def _row_of(
    entry: dict[str, Any], number: int, path: Path
) -> PromptRow:  # Any: a row's columns differ in type
    prompt_id, text, seed = (entry[column] for column in _REQUIRED)
    subject = entry.get("subject")
    if not isinstance(text, str) or not isinstance(seed, int) or prompt_id is None:
        raise DataError(
            f"prompt suite {path}: row {number + 1} lacks a prompt_id, text or integer seed; complete or remove it"
        )
    return PromptRow(str(prompt_id), text, seed, subject or None)
