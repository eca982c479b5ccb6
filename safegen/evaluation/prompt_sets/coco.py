"""COCO captions as benign prompts (Lin et al. 2014, arXiv 1405.0312), in the copies that removal studies share."""

from __future__ import annotations

from typing import ClassVar, Literal, final

from safegen.domain.report import Name, SuiteKind
from safegen.evaluation.prompt_sets.settings import PromptColumns, PromptFileSettings


@final
class CocoSettings(PromptFileSettings):
    """30,000 or 25,000 captions with seeds.

    Either form of columns: `image_id, source, prompt, evaluation_seed`, or `case_number, source, prompt,
    evaluation_seed, coco_id`.
    """

    format: Literal["coco"]
    name: Name = "coco"
    kind: SuiteKind = "benign"

    columns: ClassVar = PromptColumns(prompt=("prompt", "caption"), also=("source",))
    published_rows: ClassVar = (30_000, 25_000)
