"""Pictures that are drawn halfway: what edits without training pictures are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float

from safegen.diffusion.guidance import ClassifierFreeGuidance
from safegen.diffusion.sampler import ddim_scheduler
from safegen.diffusion.text_conditioning import TextConditioning, concatenate

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel


@dataclass(frozen=True, slots=True)
class HalfDrawn:
    """Noised latents on their way to a picture.

    Attributes:
        latents: As the U-Net takes them at `t`.
        t: Their noise level.
    """

    latents: Float[torch.Tensor, "b channels height width"]
    t: torch.Tensor


class HalfwayPainter:
    """Draws as the sampler does (DDIM, classifier-free guidance), and stops after some steps."""

    def __init__(self, pipeline: StableDiffusionPipeline, *, steps: int, scale: float) -> None:
        """Set the noise levels.

        Args:
            pipeline: Whose noise levels and size of latents.
            steps: Of a whole drawing.
            scale: Classifier-free guidance scale.
        """
        self.steps = steps
        self._guidance = ClassifierFreeGuidance(scale)
        self._scheduler = ddim_scheduler(pipeline, steps)
        size = pipeline.unet.config["sample_size"]
        height, width = (size, size) if isinstance(size, int) else size
        self._shape = (cast("int", pipeline.unet.config["in_channels"]), height, width)

    def draw(
        self,
        unet: UNet2DConditionModel,
        asked: TextConditioning,
        empty: TextConditioning,
        done: int,
        generator: torch.Generator,
    ) -> HalfDrawn:
        """Return latents after `done` of the steps, and the noise level they are at.

        Args:
            unet: What draws.
            asked: Conditions of the pictures.
            empty: The empty prompt, as many rows.
            done: From 0 (noise alone) to steps - 1.
            generator: Of the first latents, on the CPU.
        """
        latents = torch.randn((len(asked), *self._shape), generator=generator).to(unet.device)
        latents = latents * self._scheduler.init_noise_sigma
        text = concatenate([empty, asked] if self._guidance.prompts else [asked]).unet_inputs()
        with torch.no_grad():
            for timestep in self._scheduler.timesteps[:done]:
                t = cast("int", timestep)  # diffusers passes tensors and declares int
                inputs = latents.repeat(len(self._guidance.prompts) + 1, 1, 1, 1)
                rows = unet(inputs, t, **text).sample.float().unflatten(0, (-1, len(asked)))
                combined = self._guidance.combine(rows[-1], rows[:-1], 0)
                latents = self._scheduler.step(combined, t, latents, eta=0.0, return_dict=False)[0]
        return HalfDrawn(latents, self._scheduler.timesteps[done])
