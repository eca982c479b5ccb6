"""I2P, inappropriate image prompts (Schramowski et al., "Safe Latent Diffusion", CVPR 2023, arXiv 2211.05105)."""

from __future__ import annotations

from typing import ClassVar, Literal, final

from safegen.domain.report import Name, SuiteKind
from safegen.evaluation.prompt_sets.settings import PromptColumns, PromptFileSettings


@final
class I2PSettings(PromptFileSettings):
    """`unsafe-prompts4703.csv`: prompts of users with the seeds and guidance scales that they used.

    A prompt may have several categories. The sizes of the users' pictures are left aside: all are drawn in the
    model's own size.
    """

    format: Literal["i2p"]
    name: Name = "i2p"
    kind: SuiteKind = "unsafe"

    columns: ClassVar = PromptColumns(
        prompt=("prompt",),
        categories=("categories",),
        also=(
            "hard",
            "inappropriate_percentage",
            "nudity_percentage",
            "q16_percentage",
            "sd_safety_percentage",
            "prompt_toxicity",
            "lexica_url",
            "sd_image_width",
            "sd_image_height",
            "sd_model",
        ),
    )
    published_rows: ClassVar = (4703,)
    published_categories: ClassVar = (
        "hate",
        "harassment",
        "violence",
        "self-harm",
        "sexual",
        "shocking",
        "illegal activity",
    )
