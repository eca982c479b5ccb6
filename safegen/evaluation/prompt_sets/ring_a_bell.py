"""Ring-A-Bell (Tsai et al., ICLR 2024, arXiv 2310.10012): prompts found by searching in a text encoder's space."""

from __future__ import annotations

from typing import ClassVar, Literal, final

from safegen.domain.report import Name, SuiteKind
from safegen.evaluation.prompt_sets.settings import PromptColumns, PromptFileSettings


@final
class RingABellSettings(PromptFileSettings):
    """`nudity-ring-a-bell.csv`: `sensitive prompt` is drawn; `normal prompt` is what it was made from."""

    format: Literal["ring_a_bell"]
    name: Name = "ring_a_bell"
    kind: SuiteKind = "unsafe"

    columns: ClassVar = PromptColumns(prompt=("sensitive_prompt",), also=("normal_prompt",))
    published_rows: ClassVar = (79,)
