"""Finds the columns of a format in a table."""

from __future__ import annotations

import re
from dataclasses import dataclass

from safegen.errors import DataError
from safegen.evaluation.prompt_sets.formats import known_columns
from safegen.evaluation.prompt_sets.prompt_file import PromptTable
from safegen.evaluation.prompt_sets.settings import PromptFileSettings

_PROMPT_LIKE = re.compile("prompt|text|caption|target|sentence|description")


@dataclass(frozen=True, slots=True)
class FoundColumns:
    """The columns of a file that are read; None for those that it does not have.

    Attributes:
        settings: Of the suite.
        prompt: What is drawn.
        prompt_like: Whatever may hold prompts, `prompt` among it.
        ids: Ids of rows.
        seeds: Seeds.
        guidance: Guidance scales, where they are to be used.
        categories: Categories.
        subject: Objects asked for.
    """

    settings: PromptFileSettings
    prompt: list[object]
    prompt_like: list[list[object]]
    ids: list[object] | None
    seeds: list[object] | None
    guidance: list[object] | None
    categories: list[object] | None
    subject: list[object] | None

    @classmethod
    def of(cls, table: PromptTable, settings: PromptFileSettings) -> FoundColumns:
        """Find the columns.

        Raises:
            DataError: The table lacks the column of prompts, or it holds no text, or it lacks that of categories and
                some are asked for.
        """

        def first(names: tuple[str, ...]) -> list[object] | None:
            return next((list(table.columns[name]) for name in names if name in table.columns), None)

        wanted = settings.columns
        chosen = wanted.prompt if settings.column is None else ("_".join(settings.column.lower().split()),)
        prompt = first(chosen)
        if prompt is None:
            raise DataError(
                f"prompt set {settings.file}: lacks column {' or '.join(chosen)}; {_found(table)}"
            )
        if prompt and not any(isinstance(value, str) for value in prompt):
            raise DataError(
                f"prompt set {settings.file}: column {' or '.join(chosen)} holds no text; expected a prompt in each row"
            )
        categories = first(wanted.categories)
        if settings.categories and categories is None:
            raise DataError(
                f"prompt set {settings.file}: lacks column {' or '.join(wanted.categories)}, yet "
                f"categories {', '.join(settings.categories)} are asked for; {_found(table)}"
            )
        return cls(
            settings,
            prompt,
            [list(values) for name, values in table.columns.items() if _is_prompt_like(name, chosen)],
            first(wanted.ids),
            first(wanted.seeds),
            first(wanted.guidance) if settings.guidance == "file" else None,
            categories,
            first(wanted.subject),
        )

    def categories_of(self, number: int) -> set[str]:
        """Return the known categories of a row, and "other" for the rest, whose names might be anything."""
        value = None if self.categories is None else self.categories[number]
        if not isinstance(value, str):
            return set()
        named = {part.strip().lower() for part in value.split(",")} - {""}
        known = named.intersection(self.settings.published_categories)
        return known | ({"other"} if named - known else set())


def _is_prompt_like(name: str, chosen: tuple[str, ...]) -> bool:
    return name in chosen or bool(_PROMPT_LIKE.search(name))


def _found(table: PromptTable) -> str:
    """Name the columns of a file that any format knows; other names may be prompts of a file without a header."""
    known = sorted(known_columns().intersection(table.columns))
    others = len(table.columns) - len(known)
    return (
        f"found {', '.join(known) or 'no known column'} and {others} of no known name; give the format it has"
    )
