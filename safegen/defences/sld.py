"""Safe latent diffusion: while a picture is drawn, steer away from what the safety concept would draw.

Schramowski et al., "Safe Latent Diffusion: Mitigating Inappropriate Degeneration in Diffusion Models", CVPR 2023,
https://arxiv.org/abs/2211.05105, section 3, equations 3 to 8. With predicted noise u for the empty prompt, c for the
asked one and s for the safety concept, element by element:

    scale     = min(1, s_S |c - s|)  where c - s < lambda, else 0                       (6)
    safety    = scale (s - u) + s_m momentum                                            (4, 7)
    momentum <- beta_m momentum + (1 - beta_m) safety                                   (8)
    predicted = u + s_g (c - u - safety)     without `safety` in the first delta steps   (3)

Deviations: a v-predicting model's differences are turned into differences of noise first, and back (the paper knows
epsilon alone); and the same holds at a classifier-free scale of 1 or less, where the authors' code switches off. The
safety concept is the run's own, in the wording of the authors' prompt. With `prompts = "each"` there are several
concepts, and s is for each picture and step the one whose prediction is nearest to c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float

from safegen.defences.concept import Concept
from safegen.defences.defence import ProtectedModel
from safegen.defences.sld_settings import SldSettings, SldStrength
from safegen.errors import EditError

_USUAL_SCALE = 7.5


class SafetyGuidance:
    """Steers away from safety concepts; remembers the momentum of the batch that is being drawn."""

    def __init__(self, concepts: Sequence[str], strength: SldStrength, scale: float) -> None:
        """Begin without momentum.

        Args:
            concepts: The prompts that are steered away from, at least one.
            strength: How much.
            scale: Classifier-free guidance scale s_g.
        """
        self._concepts, self._strength, self._scale = tuple(concepts), strength, scale
        self._momentum: torch.Tensor | None = None

    @property
    def prompts(self) -> tuple[str, ...]:
        """The empty prompt, and the safety concepts."""
        return ("", *self._concepts)

    @property
    def description(self) -> str:
        """All settings, the concept's wording included."""
        s = self._strength
        return (
            f"safe latent diffusion {self._scale:g}, scale {s.guidance_scale:g}, warm-up {s.warmup_steps}, threshold "
            f"{s.threshold:g}, momentum {s.momentum_scale:g}/{s.momentum_decay:g}, from {'; '.join(self._concepts)!r}"
        )

    def at_scale(self, scale: float) -> SafetyGuidance:
        """Return this guidance with another classifier-free scale."""
        return SafetyGuidance(self._concepts, self._strength, scale)

    def combine(
        self,
        asked: Float[torch.Tensor, "b channels height width"],
        others: Float[torch.Tensor, "prompts b channels height width"],
        step: int,
        epsilon_rate: float = 1.0,
    ) -> Float[torch.Tensor, "b channels height width"]:
        """Return the prediction that is steered away from the concept; step 0 begins a new batch."""
        empty, concept = others[0], nearest(asked, others[1:])
        strength = self._strength
        nearer = epsilon_rate * (asked - concept)
        scale = (nearer.abs() * strength.guidance_scale).clamp(max=1.0)
        scale = torch.where(nearer >= strength.threshold, 0.0, scale)
        safety = scale * epsilon_rate * (concept - empty)
        momentum = torch.zeros_like(safety) if step == 0 or self._momentum is None else self._momentum
        safety = safety + strength.momentum_scale * momentum
        self._momentum = strength.momentum_decay * momentum + (1 - strength.momentum_decay) * safety
        towards = asked - empty
        if step >= strength.warmup_steps:
            towards = towards - safety / epsilon_rate
        return empty + self._scale * towards


def nearest(
    asked: Float[torch.Tensor, "b channels height width"],
    concepts: Float[torch.Tensor, "k b channels height width"],
) -> Float[torch.Tensor, "b channels height width"]:
    """Return for each picture the concept's prediction that is nearest to the asked one.

    >>> nearest(torch.tensor([[[[1.0]]]]), torch.tensor([[[[[3.0]]]], [[[[0.5]]]]])).item()
    0.5
    """
    distance = (concepts - asked).flatten(2).square().mean(dim=2)
    return concepts[distance.argmin(dim=0), torch.arange(len(asked), device=asked.device)]


class SafeLatentDiffusion:
    """The defence: gives a model this guidance; its weights stay as they are."""

    text_dependent = True

    def __init__(self, concept: Concept, settings: SldSettings) -> None:
        """Word the safety concepts.

        Args:
            concept: What is steered away from.
            settings: How much.
        """
        self._settings = settings
        phrases = settings.phrases or concept.phrases
        named = phrases if settings.prompts == "each" else (", ".join(phrases),)
        self._concepts = tuple(settings.wording.replace("{}", name) for name in named)

    @property
    def name(self) -> str:
        """Such as "sld-medium"."""
        return f"sld-{self._settings.level}"

    def protect(self, model: ProtectedModel) -> ProtectedModel:
        """Return the model with this guidance.

        Raises:
            EditError: It has a guidance already; two cannot steer at once.
        """
        if model.guidance is not None:
            raise EditError(
                f"{self.name}: the model is steered by {model.guidance.description!r} already; stack one sampler "
                "defence at most"
            )
        return replace(model, guidance=SafetyGuidance(self._concepts, self._settings.strength, _USUAL_SCALE))
