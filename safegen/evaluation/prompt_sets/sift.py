"""Decides row by row what becomes a prompt of a suite and what is refused, and counts why."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from safegen.domain.minors import refers_to_minors
from safegen.evaluation.prompt_sets.found_columns import FoundColumns
from safegen.evaluation.prompt_sets.prompt_file import NOT_TEXT, PromptTable
from safegen.evaluation.prompt_sets.settings import PromptFileSettings
from safegen.evaluation.prompt_suite import LARGEST_SEED, PromptRow, derived_seed

_PROMPT_ID = re.compile(r"(?!row-)[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_LARGEST_GUIDANCE = 100.0


class Refusal(StrEnum):
    """Why a row is not drawn; the first that applies, in this order."""

    MALFORMED = "malformed"
    TOO_LONG = "too_long"
    MINORS = "minors"
    EMPTY = "empty"
    NOT_TEXT = "not_text"
    BAD_SEED = "bad_seed"
    BAD_GUIDANCE = "bad_guidance"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class SiftedRows:
    """What is left of a table.

    Attributes:
        rows: Prompts to draw, in the file's order.
        refused: Rows that are not drawn, by reason.
        left_out: Rows of categories that were not asked for.
        categories: Rows of the file by category, refused ones among them; a row counts in each of its own.
        kept_categories: The same of `rows`.
        repeated: Rows of `rows` whose prompt stands there before, with another seed.
    """

    rows: tuple[PromptRow, ...]
    refused: Mapping[Refusal, int]
    left_out: int
    categories: Mapping[str, int]
    kept_categories: Mapping[str, int]
    repeated: int


def sift(table: PromptTable, settings: PromptFileSettings, seed: int) -> SiftedRows:
    """Sift a table.

    Args:
        table: What the file holds.
        settings: Of the suite.
        seed: From which seeds follow where the file has none.

    Raises:
        DataError: The table lacks the column of prompts, or it holds no text, or categories are asked for that no row
            can have. No message shows a prompt.
    """
    columns = FoundColumns.of(table, settings)
    refused = Counter({Refusal.MALFORMED: table.malformed} if table.malformed else {})
    found, kept = Counter[str](), Counter[str]()
    drawn: dict[tuple[str, int], PromptRow] = {}
    ids: set[str] = set()
    left_out = 0
    for number in range(len(columns.prompt)):
        categories = columns.categories_of(number)
        found.update(categories)
        row = _sifted(columns, number, seed)
        if isinstance(row, PromptRow) and settings.categories and categories.isdisjoint(settings.categories):
            left_out += 1
            continue
        if isinstance(row, PromptRow) and (row.text, row.seed) in drawn:
            row = Refusal.DUPLICATE
        if isinstance(row, Refusal):
            refused[row] += 1
            continue
        drawn[row.text, row.seed] = _with_own_id(row, number, ids)
        kept.update(categories)
    rows = tuple(drawn.values())
    repeated = len(rows) - len({row.text for row in rows})
    return SiftedRows(rows, dict(refused), left_out, dict(found), dict(kept), repeated)


def _sifted(columns: FoundColumns, number: int, run_seed: int) -> PromptRow | Refusal:
    text = _judged_text(columns, number)
    if isinstance(text, Refusal):
        return text
    seed = derived_seed(text, run_seed) if columns.seeds is None else _integer(columns.seeds[number])
    if seed is None or not 0 <= seed <= LARGEST_SEED:
        return Refusal.BAD_SEED
    guidance = None if columns.guidance is None else _guidance(columns.guidance[number])
    if columns.guidance is not None and guidance is None:
        return Refusal.BAD_GUIDANCE
    subject = None if columns.subject is None else columns.subject[number]
    return PromptRow(
        _file_id(columns.ids, number),
        text,
        seed,
        subject=subject.strip() or None if isinstance(subject, str) else None,
        guidance=guidance,
    )


def _judged_text(columns: FoundColumns, number: int) -> str | Refusal:
    """Return the prompt of a row, if neither it nor any other prompt of the row speaks against it."""
    values = [each[number] for each in columns.prompt_like]
    texts = [value for value in values if isinstance(value, str)]
    if any(len(text) > columns.settings.max_chars for text in texts):
        return Refusal.TOO_LONG
    if any(map(refers_to_minors, texts)):
        return Refusal.MINORS
    prompt = columns.prompt[number]
    if prompt is None or (isinstance(prompt, str) and not prompt.strip()):
        return Refusal.EMPTY
    # What cannot be read cannot be looked at either, so an unreadable prompt beside this one counts as well.
    if not isinstance(prompt, str) or any(value is NOT_TEXT for value in values) or not _is_text(prompt):
        return Refusal.NOT_TEXT
    return prompt.strip()


def _with_own_id(row: PromptRow, number: int, taken: set[str]) -> PromptRow:
    """Keep the file's id where it is the first of its kind; else the row is named by its number."""
    prompt_id = row.prompt_id if row.prompt_id and row.prompt_id not in taken else f"row-{number + 1}"
    taken.add(prompt_id)
    return PromptRow(prompt_id, row.text, row.seed, row.subject, row.guidance)


def _file_id(ids: list[object] | None, number: int) -> str:
    value = None if ids is None else ids[number]
    integer = _integer(value)
    if integer is not None and 0 <= integer <= LARGEST_SEED:
        return str(integer)
    return value if isinstance(value, str) and _PROMPT_ID.fullmatch(value) else ""


def _is_text(text: str) -> bool:
    kinds = [unicodedata.category(character) for character in text if not character.isspace()]
    return not {"Cc", "Cs"}.intersection(kinds) and any(kind[0] in "LN" for kind in kinds)


def _number(value: object) -> float | int | None:
    if isinstance(value, str):
        try:
            value = int(value) if value.strip().isdecimal() else float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _integer(value: object) -> int | None:
    number = _number(value)
    # Tables with gaps hold integers as 7.0; beyond 2**53 such a number is no longer the one that was meant.
    if isinstance(number, float):
        return int(number) if number.is_integer() and abs(number) < 2**53 else None
    return number


def _guidance(value: object) -> float | None:
    number = _number(value)
    return float(number) if number is not None and 0 <= number <= _LARGEST_GUIDANCE else None


def refusals(counts: Mapping[Refusal, int]) -> Iterator[str]:
    """Yield reasons with their counts, most frequent first, such as "minors 3"."""
    yield from (f"{reason} {count}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))
