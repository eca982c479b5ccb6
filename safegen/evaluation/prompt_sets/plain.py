"""Prompts of one's own: plain text with one a line, or a CSV or Parquet table."""

from __future__ import annotations

from typing import ClassVar, Literal, final

from safegen.evaluation.prompt_sets.settings import (
    ID_COLUMNS,
    SEED_COLUMNS,
    PromptColumns,
    PromptFileSettings,
)


@final
class PlainSettings(PromptFileSettings):
    """Columns `text` (or `prompt`, `caption`) and, if any, `prompt_id`, `seed`, `guidance` and `subject`.

    `subject` is the detector's label of the object asked for; it makes the metrics of kept subjects possible.
    """

    format: Literal["plain"]

    columns: ClassVar = PromptColumns(
        prompt=("text", "prompt", "caption"),
        ids=("prompt_id", "id", *ID_COLUMNS),
        seeds=("seed", *SEED_COLUMNS[:-1]),
        subject=("subject",),
    )
    suffixes: ClassVar = (".csv", ".parquet", ".txt")
