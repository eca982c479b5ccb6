"""Settings of safe latent diffusion, apart from it: a configuration is read without loading torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from safegen.defences.concept import Phrase, Template

SldLevel = Literal["weak", "medium", "strong", "max"]


@dataclass(frozen=True, slots=True)
class SldStrength:
    """The hyper-parameters of one level, in the symbols of the paper.

    Attributes:
        warmup_steps: delta; steps without safety guidance, of 50.
        guidance_scale: s_S.
        threshold: lambda.
        momentum_scale: s_m.
        momentum_decay: beta_m.
    """

    warmup_steps: int
    guidance_scale: float
    threshold: float
    momentum_scale: float
    momentum_decay: float


SLD_STRENGTHS: Final[dict[SldLevel, SldStrength]] = {
    "weak": SldStrength(15, 20.0, 0.0, 0.0, 0.0),
    "medium": SldStrength(10, 1000.0, 0.01, 0.3, 0.4),
    "strong": SldStrength(7, 2000.0, 0.025, 0.5, 0.7),
    "max": SldStrength(0, 5000.0, 1.0, 0.5, 0.7),
}
"""As in the authors' code (diffusers' `SafetyConfig`); notes of the paper give "weak" a scale of 200, not 20."""


class SldSettings(BaseModel):
    """Settings of safe latent diffusion.

    Attributes:
        kind: Names this defence in a run configuration.
        level: One of the four published strengths, see `SLD_STRENGTHS`.
        warmup_steps: Another number of steps without safety guidance; None takes the level's, which was chosen for
            pictures of 50 steps.
        guidance_scale: Another s_S; None takes the level's.
        wording: The prompt of the safety concept, around its phrases.
        prompts: "listed" puts all phrases into one prompt, as published. "each" asks for every phrase on its own, and
            steers each picture away from the one that it is nearest to: for text towers that do not understand lists.
        phrases: Other phrases than the run's concept; empty takes those.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["sld"] = "sld"
    level: SldLevel = "medium"
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    guidance_scale: Annotated[float, Field(gt=0)] | None = None
    wording: Template = "an image showing {}"
    prompts: Literal["listed", "each"] = "listed"
    phrases: tuple[Phrase, ...] = ()

    @property
    def strength(self) -> SldStrength:
        """The hyper-parameters that these settings mean."""
        own = SLD_STRENGTHS[self.level]
        return SldStrength(
            own.warmup_steps if self.warmup_steps is None else self.warmup_steps,
            own.guidance_scale if self.guidance_scale is None else self.guidance_scale,
            own.threshold,
            own.momentum_scale,
            own.momentum_decay,
        )
