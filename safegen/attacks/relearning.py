"""Relearning: fine-tunes an edited U-Net as any user of released weights can, and asks whether the concept returns.

Plain fine-tuning by the diffusion loss over all weights, each picture under its own caption: on benign pictures alone,
as a user without bad intent does (Li et al. 2025, ResAlign, arXiv 2507.16302), or on k unsafe ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from safegen.attacks.attack_settings import RelearningSettings
from safegen.attacks.fine_tuning import CaptionedLatents, noised_batch
from safegen.defences.triplet_latents import batch_generator, encode_prompts, own_rows
from safegen.defences.weight_edit import arithmetic
from safegen.diffusion.losses import weighted_mse
from safegen.diffusion.noise_schedule import noise_schedule
from safegen.diffusion.pipeline_parts import with_copies
from safegen.errors import EditError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

MeasureStep = Callable[[int, "StableDiffusionPipeline"], None]
"""Called at the steps to measure with the number of steps done and the pipeline as it is then."""


def relearn(
    pipeline: StableDiffusionPipeline,
    pictures: CaptionedLatents,
    settings: RelearningSettings,
    *,
    seed: int,
    measure: MeasureStep,
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> None:
    """Fine-tune a copy of a pipeline's U-Net and measure on the way.

    Args:
        pipeline: The attacked model, in float32; stays as it is.
        pictures: What it is fine-tuned on.
        settings: The budget.
        seed: Of every choice.
        measure: Measures; called after each of `settings.measure_at`.
        on_step: Told of every step and its loss.

    Raises:
        EditError: There is no picture.
    """
    if len(pictures) == 0:
        raise EditError("relearning: there is no picture to fine-tune on; expected at least one")
    attacked = with_copies(pipeline, ("unet",))
    attacked.unet.requires_grad_(True)
    unet, schedule = attacked.unet, noise_schedule(dict(attacked.scheduler.config))
    prompts, own_prompt = encode_prompts(pipeline, pictures.captions), own_rows(pictures.captions)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    for step in range(settings.measure_at[-1]):
        generator = batch_generator(seed, step, 0)
        picked = torch.randint(len(pictures), (settings.batch_size,), generator=generator)
        batch = noised_batch(pictures.latents[picked], schedule, generator, unet.device)
        text = prompts[own_prompt[picked]].to(unet.device).unet_inputs()
        with arithmetic(unet.device, settings.mixed_precision):
            predicted = unet(batch.noised, batch.t, **text, return_dict=False)[0]
        loss = weighted_mse(predicted, batch.truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        on_step(step + 1, loss.item())
        if step + 1 in settings.measure_at:
            measure(step + 1, attacked)
