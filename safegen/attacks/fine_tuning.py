"""What attacks that train share: captioned pictures as latents, and noised batches of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int

from safegen.diffusion.noise_schedule import NoiseSchedule


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
class NoisedBatch:
    """Latents at random noise levels, and what a perfect U-Net predicts of them.

    Attributes:
        noised: x_t.
        t: Noise levels.
        truth: What the U-Net shall predict.
    """

    noised: Float[torch.Tensor, "b channels height width"]
    t: Int[torch.Tensor, "b"]
    truth: Float[torch.Tensor, "b channels height width"]


def noised_batch(
    clean: Float[torch.Tensor, "b channels height width"],
    schedule: NoiseSchedule,
    generator: torch.Generator,
    device: torch.device,
) -> NoisedBatch:
    """Noise latents at random levels.

    Args:
        clean: Scaled latents on the CPU.
        schedule: Of the attacked model.
        generator: Source of all randomness, on the CPU.
        device: Where the batch goes.
    """
    t = torch.randint(schedule.timesteps, (len(clean),), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    clean, t, noise = (part.to(device) for part in (clean, t, noise))
    return NoisedBatch(schedule.noised(clean, noise, t), t, schedule.truth(clean, noise, t))
