"""Another pipeline with some parts of its own; all others are shared."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline


def with_parts(pipeline: StableDiffusionPipeline, **parts: torch.nn.Module) -> StableDiffusionPipeline:
    """Return a pipeline that has `parts` in place of its own; the one given stays as it was.

    Args:
        pipeline: SD 1.x, 2.x or SDXL.
        parts: Networks by the names that diffusers gives them: `unet`, `text_encoder`.
    """
    other = copy.copy(pipeline)
    for name, part in parts.items():
        setattr(other, name, part)
    return other


def with_copies(pipeline: StableDiffusionPipeline, names: tuple[str, ...]) -> StableDiffusionPipeline:
    """Return a pipeline whose named parts are copies, so that they can be edited in place."""
    return with_parts(pipeline, **{name: copy.deepcopy(getattr(pipeline, name)) for name in names})
