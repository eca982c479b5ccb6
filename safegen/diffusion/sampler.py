"""Draws pictures in batches, each as it would be drawn alone.

DDIM without added noise (Song et al. 2021, arXiv 2010.02502, eta 0), in the form of diffusers' StableDiffusionPipeline:
the same prompt, seed, steps and guidance give the same picture up to rounding. A picture's only randomness is its
first latent, from a CPU generator with the picture's own seed; so it depends neither on its batch nor on its device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from safegen.diffusion.guidance import ClassifierFreeGuidance, Guidance
from safegen.diffusion.latents import pictures_at_a_time, to_pictures
from safegen.diffusion.prompt_states import PromptStates
from safegen.errors import EvaluationError

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

Precision = Literal["float32", "bfloat16", "float16"]
DrawnCount = Callable[[int, int], None]
"""Called after every batch with the number of pictures drawn and of all asked for."""

SCHEDULER_NAME = "DDIM"


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """How pictures are drawn.

    Attributes:
        steps: Denoising steps.
        guidance: Classifier-free guidance scale.
        height_px: None for the size that the model was made for.
        width_px: None for the size that the model was made for.
        precision: Arithmetic of the U-Net; weights stay as they are, so those in float32 are cast as they are used.
            "float16" needs a GPU.
        batch_size: Pictures drawn at a time; has no part in what they look like.
    """

    steps: int = 50
    guidance: float = 7.5
    height_px: int | None = None
    width_px: int | None = None
    precision: Precision = "float32"
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise EvaluationError(
                f"cannot draw in {self.steps} steps, {self.batch_size} at a time; expected at least 1"
            )


@dataclass(frozen=True, slots=True)
class DrawRequest:
    """One picture asked for: a prompt and the seed of its first latent."""

    prompt: str
    seed: int


def draw(
    pipeline: StableDiffusionPipeline,
    requests: Sequence[DrawRequest],
    settings: SamplerSettings,
    *,
    guidance: Guidance | None = None,
    on_batch: DrawnCount | None = None,
) -> Iterator[tuple[int, NDArray[np.uint8] | None]]:
    """Draw pictures and yield each with its index, in order.

    Args:
        pipeline: Stable Diffusion 1.x, 2.x or SDXL, on any device.
        requests: What to draw.
        settings: How.
        guidance: What to make of several predictions; None for classifier-free guidance of `settings.guidance`.
        on_batch: Told of progress.

    Yields:
        Index and RGB picture, (H, W, 3) uint8. None stands for a picture that did not come out: its numbers are not
        finite.

    Raises:
        EvaluationError: The pipeline is of another family, or the size does not fit its VAE.
    """
    run = _Run(pipeline, settings, guidance or ClassifierFreeGuidance(settings.guidance))
    for start in range(0, len(requests), settings.batch_size):
        batch = requests[start : start + settings.batch_size]
        yield from enumerate(run.draw(batch), start)
        if on_batch is not None:
            on_batch(start + len(batch), len(requests))


class _Run:
    def __init__(
        self, pipeline: StableDiffusionPipeline, settings: SamplerSettings, guidance: Guidance
    ) -> None:
        self._unet, self._vae = pipeline.unet, pipeline.vae
        self._settings, self._guidance = settings, guidance
        self._latent_size, size_px = _sizes(pipeline, settings)
        self._states = PromptStates(pipeline, size_px)
        self._scheduler = ddim_scheduler(pipeline, settings.steps)
        self._epsilon_rates = _epsilon_rates(self._scheduler)
        self._decoded_at_a_time = pictures_at_a_time(size_px)
        if settings.precision == "float16" and self._unet.device.type == "cpu":
            raise EvaluationError('cannot draw in float16 on a CPU; use precision = "float32" or "bfloat16"')

    @torch.no_grad()
    def draw(self, batch: Sequence[DrawRequest]) -> list[NDArray[np.uint8] | None]:
        latents = self._denoise(self._first_latents(batch), [request.prompt for request in batch])
        scaled = latents / cast("float", self._vae.config["scaling_factor"])
        parts = scaled.to(self._vae.dtype).split(self._decoded_at_a_time)
        decoded = torch.cat(
            [self._vae.decode(part).sample for part in parts]
        ).float()  # (b, 3, H, W), about [-1, 1]
        came_out = decoded.isfinite().flatten(1).all(dim=1).tolist()
        pictures = to_pictures(decoded.nan_to_num())
        return [picture if good else None for picture, good in zip(pictures, came_out, strict=True)]

    def _first_latents(self, batch: Sequence[DrawRequest]) -> Float[torch.Tensor, "b channels height width"]:
        shape = (1, cast("int", self._unet.config["in_channels"]), *self._latent_size)
        # float32 whatever the weights are: in another type the generator would draw another picture.
        drawn = [
            torch.randn(shape, generator=torch.Generator().manual_seed(request.seed)) for request in batch
        ]
        return torch.cat(drawn).to(self._unet.device) * self._scheduler.init_noise_sigma

    def _denoise(
        self, latents: Float[torch.Tensor, "b channels height width"], prompts: list[str]
    ) -> Float[torch.Tensor, "b channels height width"]:
        others = self._guidance.prompts
        every = [prompt for other in others for prompt in [other] * len(prompts)] + prompts
        conditioning = self._states.conditioning(every).to(self._unet.dtype).unet_inputs()
        # One context for all steps: autocast then converts each weight once.
        with self._arithmetic():
            for step, timestep in enumerate(self._scheduler.timesteps):
                t = cast("int", timestep)  # diffusers passes tensors and declares int
                inputs = latents.repeat(len(others) + 1, 1, 1, 1)
                inputs = self._scheduler.scale_model_input(inputs, t).to(self._unet.dtype)
                predicted = self._unet(inputs, t, **conditioning).sample
                rows = predicted.to(latents.dtype).unflatten(0, (len(others) + 1, len(prompts)))
                combined = self._guidance.combine(rows[-1], rows[:-1], step, self._epsilon_rates[step])
                latents = self._scheduler.step(combined, t, latents, eta=0.0, return_dict=False)[0]
        return latents

    def _arithmetic(self) -> contextlib.AbstractContextManager[object]:
        if self._settings.precision == "float32" or self._unet.dtype != torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self._unet.device.type, getattr(torch, self._settings.precision))


def ddim_scheduler(pipeline: StableDiffusionPipeline, steps: int) -> DDIMScheduler:
    """Return a DDIM scheduler of the pipeline's own noise levels, set to this many steps."""
    from diffusers import DDIMScheduler

    config = dict(pipeline.scheduler.config)
    # Clipping predicted latents to [-1, 1] is DDIM's default for pixels; schedulers of latent models leave it unsaid.
    config.setdefault("clip_sample", False)
    known = set(DDIMScheduler._get_init_keys(DDIMScheduler))  # noqa: SLF001  (else it logs what it leaves out)
    scheduler = DDIMScheduler.from_config({key: value for key, value in config.items() if key in known})
    scheduler = cast("DDIMScheduler", scheduler)
    scheduler.set_timesteps(steps, device=pipeline.unet.device)
    return scheduler


def _epsilon_rates(scheduler: DDIMScheduler) -> list[float]:
    """Return what every step passes to `Guidance.combine` as `epsilon_rate`."""
    if scheduler.config["prediction_type"] != "v_prediction":
        return [1.0] * len(scheduler.timesteps)
    return scheduler.alphas_cumprod[scheduler.timesteps.cpu()].sqrt().tolist()


def _sizes(
    pipeline: StableDiffusionPipeline, settings: SamplerSettings
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return height and width of latents, and of pictures."""
    factor = 2 ** (len(pipeline.vae.config["block_out_channels"]) - 1)
    own_height, own_width = own_size_px(pipeline)
    asked = (settings.height_px or own_height, settings.width_px or own_width)
    if any(size % factor for size in asked):
        raise EvaluationError(
            f"cannot draw {asked[1]} x {asked[0]} px: expected multiples of {factor}, the VAE's cell"
        )
    return (asked[0] // factor, asked[1] // factor), asked


def own_size_px(pipeline: StableDiffusionPipeline) -> tuple[int, int]:
    """Return height and width of the pictures that a model was made for."""
    own = pipeline.unet.config["sample_size"]
    height, width = (own, own) if isinstance(own, int) else own
    factor = 2 ** (len(pipeline.vae.config["block_out_channels"]) - 1)
    return height * factor, width * factor
