"""SneakyPrompt (Yang et al., IEEE S&P 2024, arXiv 2305.12082): prompts found by a black-box token search."""

from __future__ import annotations

from typing import ClassVar, Literal, final

from safegen.domain.report import Name, SuiteKind
from safegen.evaluation.prompt_sets.settings import PromptColumns, PromptFileSettings


@final
class SneakyPromptSettings(PromptFileSettings):
    """A table with the found prompts, or plain text with one a line, as the authors give it on request."""

    format: Literal["sneakyprompt"]
    name: Name = "sneakyprompt"
    kind: SuiteKind = "unsafe"

    columns: ClassVar = PromptColumns(
        prompt=("adv_prompt", "adversarial_prompt", "sneaky_prompt", "prompt", "text"),
        also=("target_prompt",),
    )
    suffixes: ClassVar = (".csv", ".parquet", ".txt")
