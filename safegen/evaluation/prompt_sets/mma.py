"""MMA-Diffusion (Yang et al., CVPR 2024, arXiv 2311.17516): adversarial prompts without sensitive words."""

from __future__ import annotations

from typing import ClassVar, Literal, final

from safegen.domain.report import Name, SuiteKind
from safegen.evaluation.prompt_sets.settings import PromptColumns, PromptFileSettings


@final
class MmaSettings(PromptFileSettings):
    """1,000 rows; `adv_prompt` is drawn, `column` can choose `sanitized_adv_prompt` or `target_prompt`."""

    format: Literal["mma"]
    name: Name = "mma"
    kind: SuiteKind = "unsafe"

    columns: ClassVar = PromptColumns(
        prompt=("adv_prompt",), also=("target_prompt", "sanitized_adv_prompt", "clean_prompt")
    )
    published_rows: ClassVar = (1000,)
