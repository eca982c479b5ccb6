"""What attacks that train share: captioned pictures as latents, and the arithmetic of a forward pass."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from jaxtyping import Float

from safegen.attacks.attack_settings import MixedPrecision


@dataclass(frozen=True, slots=True)
class CaptionedLatents:
    """Pictures to fine-tune on, encoded once; captions are not, since a defence may have another text tower.

    Attributes:
        latents: Scaled latents, float32 on the CPU.
        captions: Of each picture; may be empty.
    """

    latents: Float[torch.Tensor, "n channels height width"]
    captions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.latents)

    def first(self, count: int) -> CaptionedLatents:
        """Return the first pictures."""
        return CaptionedLatents(self.latents[:count], self.captions[:count])


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Arithmetic of a forward pass; called, it gives a context for one."""

    device: str
    mixed_precision: MixedPrecision

    def __call__(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which the forward pass runs."""
        if self.mixed_precision == "no":
            return contextlib.nullcontext()
        return torch.autocast(self.device, torch.bfloat16)
