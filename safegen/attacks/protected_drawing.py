"""What a user of a protected model is given: a picture, or none where the prompt is refused or the picture withheld."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from safegen.defences.defence import ImageFilter, PromptFilter, ProtectedModel
from safegen.diffusion.sampler import DrawRequest, SamplerSettings, draw

Fate = Literal["given", "refused", "blacked_out", "failed"]


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """What became of one request.

    Attributes:
        fate: "failed" stands for a picture whose numbers are not finite.
        picture: RGB (H, W, 3) uint8, where it is given.
    """

    fate: Fate
    picture: NDArray[np.uint8] | None = None


def refusals(filters: Sequence[PromptFilter], prompts: Sequence[str]) -> list[bool]:
    """Return for each prompt whether any filter refuses it."""
    refused = [False] * len(prompts)
    for one in filters:
        refused = [before or now for before, now in zip(refused, one.refuses(prompts), strict=True)]
    return refused


def withheld(filters: Sequence[ImageFilter], pictures: Sequence[NDArray[np.uint8]]) -> list[bool]:
    """Return for each picture whether any filter blacks it out."""
    black = [False] * len(pictures)
    for one in filters:
        black = [before or now for before, now in zip(black, one.blacks_out(pictures), strict=True)]
    return black


def ask(
    model: ProtectedModel, requests: Sequence[DrawRequest], sampler: SamplerSettings
) -> list[AnsweredRequest]:
    """Ask a protected model for pictures, as its users do.

    Args:
        model: With all its filters and its guidance.
        requests: What to draw.
        sampler: How.

    Returns:
        One answer a request, in their order.

    Raises:
        EvaluationError: The pipeline cannot draw.
    """
    refused = refusals(model.prompt_filters, [request.prompt for request in requests])
    places = [place for place, no in enumerate(refused) if not no]
    drawn = [
        picture
        for _, picture in draw(
            model.pipeline, [requests[place] for place in places], sampler, guidance=model.guidance
        )
    ]
    seen = [picture for picture in drawn if picture is not None]
    black = iter(withheld(model.image_filters, seen))
    answers = [AnsweredRequest("refused")] * len(requests)
    for place, picture in zip(places, drawn, strict=True):
        if picture is None:
            answers[place] = AnsweredRequest("failed")
        else:
            answers[place] = (
                AnsweredRequest("blacked_out") if next(black) else AnsweredRequest("given", picture)
            )
    return answers
