"""What a defence is: something that takes a model and gives it back protected, so that defences stack.

A text-to-image model can be kept from drawing a concept in four places, and every defence acts in one or more of them:

    prompt --prompt filter--> text tower --U-Net weights + guidance--> picture --image filter--> user
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from safegen.diffusion.guidance import Guidance

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


class PromptFilter(Protocol):
    """Refuses prompts before anything is drawn."""

    @property
    def description(self) -> str:
        """Name and settings in one line; what is refused under another description may differ."""
        ...

    def refuses(self, prompts: Sequence[str]) -> list[bool]:
        """Return for each prompt whether it is refused. Prompts are never logged."""
        ...


class ImageFilter(Protocol):
    """Blacks pictures out after they are drawn."""

    @property
    def description(self) -> str:
        """Name and settings in one line; what is blacked out under another description may differ."""
        ...

    def blacks_out(self, pictures: Sequence[NDArray[np.uint8]]) -> list[bool]:
        """Return for each RGB picture, (H, W, 3), whether it is withheld."""
        ...


@dataclass(frozen=True, slots=True)
class ProtectedModel:
    """A model and what protects it in each of the four places.

    Attributes:
        sha256: Of all that decides what the weights are: those of the base, and every weight edit.
        pipeline: The weights.
        guidance: How the sampler is steered; None for classifier-free guidance alone.
        prompt_filters: A prompt that any of them refuses is not drawn.
        image_filters: A picture that any of them blacks out is withheld.
    """

    sha256: str
    pipeline: StableDiffusionPipeline
    guidance: Guidance | None = None
    prompt_filters: tuple[PromptFilter, ...] = ()
    image_filters: tuple[ImageFilter, ...] = ()


class Defence(Protocol):
    """Protects a model. `protect` may take minutes (a weight edit) or no time at all (a filter)."""

    @property
    def name(self) -> str:
        """Short and stable, such as "esd-x"."""
        ...

    @property
    def text_dependent(self) -> bool:
        """Whether it acts by what the prompt says, so that a prompt that says it otherwise may get round it."""
        ...

    def protect(self, model: ProtectedModel) -> ProtectedModel:
        """Return the model protected; the one given stays as it was, its pipeline's weights included.

        Raises:
            EditError: The model is of a kind that the defence cannot protect.
        """
        ...
