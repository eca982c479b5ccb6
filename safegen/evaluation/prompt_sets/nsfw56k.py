"""NSFW-56k (Li et al., "SafeGen", CCS 2024, arXiv 2404.06666): captions of explicit pictures, given on request."""

from __future__ import annotations

from typing import ClassVar, Literal, final

from safegen.domain.report import Name, SuiteKind
from safegen.evaluation.prompt_sets.settings import PromptColumns, PromptFileSettings


@final
class Nsfw56kSettings(PromptFileSettings):
    """A table with a column of prompts, or plain text with one a line."""

    format: Literal["nsfw56k"]
    name: Name = "nsfw56k"
    kind: SuiteKind = "unsafe"

    columns: ClassVar = PromptColumns(prompt=("prompt", "text", "caption"))
    suffixes: ClassVar = (".csv", ".parquet", ".txt")
