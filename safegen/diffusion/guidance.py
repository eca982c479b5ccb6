"""How the predictions of a U-Net for several prompts become the one that a sampler steps along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float


class Guidance(Protocol):
    """Combines what the U-Net predicts for the asked prompt with what it predicts for other prompts.

    A defence that acts while a picture is drawn is one of these: safe latent diffusion, for example, asks for the
    empty prompt and for its safety concept, and steers away from the second.
    """

    @property
    def prompts(self) -> tuple[str, ...]:
        """The other prompts that the U-Net is asked for in the same pass, the same for every picture."""
        ...

    @property
    def description(self) -> str:
        """Name and settings in one line; pictures drawn under another description are other pictures."""
        ...

    def at_scale(self, scale: float) -> Guidance:
        """Return the same guidance with another classifier-free scale, for prompts that bring their own."""
        ...

    def combine(
        self,
        asked: Float[torch.Tensor, "b channels height width"],
        others: Float[torch.Tensor, "prompts b channels height width"],
        step: int,
        epsilon_rate: float = 1.0,
    ) -> Float[torch.Tensor, "b channels height width"]:
        """Return the prediction to step along.

        Args:
            asked: Predictions for the asked prompts.
            others: Predictions for `prompts`, in that order.
            step: Number of the denoising step of this batch, from 0.
            epsilon_rate: What turns a difference of two predictions at this step into one of predicted noise: 1
                for epsilon-prediction; sqrt(a_t) for v, because eps = sqrt(a_t) v + sqrt(1 - a_t) x_t.
        """
        ...


@dataclass(frozen=True, slots=True)
class ClassifierFreeGuidance:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598), in diffusers' scaling.

    The prediction is u + scale (c - u), u for the empty prompt and c for the asked one. As in diffusers a scale of
    1 or less means c alone, and the U-Net is not asked for u.

    Attributes:
        scale: Guidance scale.
    """

    scale: float

    @property
    def prompts(self) -> tuple[str, ...]:
        """The empty prompt, where it is needed."""
        return ("",) if self.scale > 1 else ()

    @property
    def description(self) -> str:
        """Such as "classifier-free 7.5"."""
        return f"classifier-free {self.scale:g}"

    def at_scale(self, scale: float) -> ClassifierFreeGuidance:
        """Return this guidance with another scale."""
        return ClassifierFreeGuidance(scale)

    def combine(
        self,
        asked: Float[torch.Tensor, "b channels height width"],
        others: Float[torch.Tensor, "prompts b channels height width"],
        step: int,
        epsilon_rate: float = 1.0,
    ) -> Float[torch.Tensor, "b channels height width"]:
        """Return u + scale (c - u)."""
        del step, epsilon_rate
        return others[0] + self.scale * (asked - others[0]) if len(others) else asked
