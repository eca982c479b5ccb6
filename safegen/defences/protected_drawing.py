"""Draws with a protected model: prompts are filtered before, pictures after, and what is withheld is counted apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from safegen.defences.defence import ProtectedModel
from safegen.diffusion.sampler import DrawRequest, SamplerSettings, draw

Fate = Literal["drawn", "refused", "blacked out", "failed"]
"""What became of a prompt: a picture; refused by a prompt filter; withheld by an image filter; or no finite numbers."""


@dataclass(frozen=True, slots=True)
class ProtectedPicture:
    """What a user of a protected model gets.

    Attributes:
        fate: What became of the prompt.
        picture: RGB, (H, W, 3) uint8; None unless it was drawn. So whatever judges pictures finds none to call safe: a
            picture that is withheld is unscored.
    """

    fate: Fate
    picture: NDArray[np.uint8] | None


def draw_protected(
    model: ProtectedModel, requests: Sequence[DrawRequest], settings: SamplerSettings
) -> Iterator[tuple[int, ProtectedPicture]]:
    """Draw, and yield each request's index with what became of it, in order.

    Args:
        model: What draws and what protects it.
        requests: What to draw.
        settings: How; its classifier-free scale holds for the model's guidance as well.
    """
    refused = refused_prompts(model, [request.prompt for request in requests])
    asked = [request for request, no in zip(requests, refused, strict=True) if not no]
    guidance = None if model.guidance is None else model.guidance.at_scale(settings.guidance)
    pictures = draw(model.pipeline, asked, settings, guidance=guidance)
    for index, no in enumerate(refused):
        if no:
            yield index, ProtectedPicture("refused", None)
        else:
            yield index, looked_at(model, [next(pictures)[1]])[0]


def refused_prompts(model: ProtectedModel, prompts: Sequence[str]) -> list[bool]:
    """Return for each prompt whether any of the model's prompt filters refuses it."""
    answers = [prompt_filter.refuses(prompts) for prompt_filter in model.prompt_filters]
    return [any(no) for no in zip(*answers, strict=True)] if answers else [False] * len(prompts)


def looked_at(model: ProtectedModel, pictures: Sequence[NDArray[np.uint8] | None]) -> list[ProtectedPicture]:
    """Let the model's image filters look at pictures that were drawn; None stands for one that did not come out."""
    came_out = [picture for picture in pictures if picture is not None]
    answers = [image_filter.blacks_out(came_out) for image_filter in model.image_filters]
    withheld = iter([any(no) for no in zip(*answers, strict=True)] if answers else [False] * len(came_out))
    return [
        ProtectedPicture("failed", None)
        if picture is None
        else ProtectedPicture("blacked out", None)
        if next(withheld)
        else ProtectedPicture("drawn", picture)
        for picture in pictures
    ]


def fate_counts(pictures: Sequence[ProtectedPicture]) -> dict[Fate, int]:
    """Count what became of prompts, each fate apart.

    >>> fate_counts([ProtectedPicture("blacked out", None)])
    {'drawn': 0, 'refused': 0, 'blacked out': 1, 'failed': 0}
    """
    fates = [picture.fate for picture in pictures]
    every: tuple[Fate, ...] = ("drawn", "refused", "blacked out", "failed")
    return {fate: fates.count(fate) for fate in every}
