"""SafeGen: edit only the vision-only self-attention so that an unsafe picture turns into its censored form.

Li et al., "SafeGen: Mitigating Sexually Explicit Content Generation in Text-to-Image Models", ACM CCS 2024,
https://arxiv.org/abs/2404.06666, section 4. With x_t the noised latent of a picture and c a text embedding:

    Lm = || U(x_t of unsafe, t, c) - target that means the censored picture ||^2
    Lp = || U(x_t of benign, t, c) - noise, or the frozen base's prediction ||^2
    Lh = || U(x_t of censored, t, c) - target that means the censored picture ||^2      (ours; the paper has none)

    minimise  w_m Lm + w_p Lp + w_h Lh  over `attn1` only, by AdamW.

Deviations from the published code, each a setting: `target` "exact", `text` "mixed", `preserve` "base", and Lh, which
holds the censored picture in place while a prompt pulls towards the concept. Latents are encoded once, not in every
step, and all pictures of a step go through the U-Net in one pass.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from safegen.defences.edit_checkpoint import EditState
from safegen.defences.edit_loop import EditObservers, EditPace, run_steps
from safegen.defences.ranks import agreed, open_accelerator
from safegen.defences.safegen_settings import SafeGenSettings
from safegen.defences.triplet_latents import (
    EditBatch,
    TripletLatents,
    batch_generator,
    check_triplets,
    draw_batch,
    encode_prompts,
    own_rows,
)
from safegen.defences.weight_average import WeightAverage
from safegen.diffusion.delta import self_attention_weights
from safegen.diffusion.losses import weighted_mse
from safegen.diffusion.noise_schedule import noise_schedule
from safegen.diffusion.text_conditioning import concatenate
from safegen.errors import EditError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

__all__ = ["EditObservers", "SafeGenSettings", "TripletLatents", "edit_unet", "encode_prompts", "own_rows"]


def edit_unet(
    pipeline: StableDiffusionPipeline,
    data: TripletLatents,
    settings: SafeGenSettings,
    *,
    seed: int,
    progress_file: Path | None = None,
    observers: EditObservers | None = None,
) -> None:
    """Edit a pipeline's U-Net in place.

    Everything random follows from the seed and the step's number, so a run that was killed and goes on from
    `progress_file` ends with the same weights, bit for bit.

    Under `accelerate launch` every process calls this with the same arguments, and each passes `batch_size` triplets:
    two processes edit as one with twice the batch size does. All end with the same weights; only the first one keeps
    progress and tells observers.

    Args:
        pipeline: The base model, in float32.
        data: Triplets.
        settings: How to edit.
        seed: Seed of the whole edit.
        progress_file: Where unfinished work is kept; None keeps none.
        observers: Who is told of progress.

    Raises:
        EditError: The loss is not finite, the data cannot be trained on, or there is nothing to edit.
    """
    check_triplets(data, settings)
    edit = _Edit(pipeline, data, settings, seed)
    first = edit.accelerator.is_main_process
    observers = observers if observers and first else EditObservers()
    run_steps(
        edit.step,
        edit.state,
        EditPace(settings.steps, settings.checkpoint_every_steps, settings.preview_every_steps),
        edit.unet,
        progress_file=progress_file,
        observers=observers,
        previewed=edit.average.in_place,
        keeps=first,
    )
    edit.finish()


class _Edit:
    """State of one edit: weights, optimiser, running average, and the step that changes them."""

    def __init__(
        self, pipeline: StableDiffusionPipeline, data: TripletLatents, settings: SafeGenSettings, seed: int
    ) -> None:
        self.settings, self.seed, self.data = settings, seed, data
        self.schedule = noise_schedule(dict(pipeline.scheduler.config))
        self.unet: UNet2DConditionModel = pipeline.unet
        self.accelerator = open_accelerator(settings.mixed_precision)
        self.ranks = self.accelerator.num_processes
        identity = _identity(pipeline, data, settings, seed, self.ranks)
        if agreed(lambda: identity) != identity:
            raise EditError(
                "edit: processes differ in base model, triplets, settings or seed; start all alike"
            )
        self.base = self._frozen_copy() if settings.preserve == "base" else None
        self.weights = _trainable(self.unet, settings.layers)
        self._prepare_unet()
        adamw = torch.optim.AdamW(
            self.weights.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.predict, self.optimizer = self.accelerator.prepare(self.unet, adamw)
        self.average = WeightAverage(self.weights, settings.ema_decay)
        self.state = EditState(
            identity, self.weights, self.average.values, self.optimizer, self.accelerator.scaler
        )

    def step(self, step: int) -> dict[str, float]:
        """Do one optimiser step and return what happened."""
        settings = self.settings
        rate = settings.learning_rate * _rate_factor(step, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, float] = {}
        for part in range(settings.accumulation):
            generator = batch_generator(self.seed, step, part)
            last = part == settings.accumulation - 1
            with nullcontext() if last else self.accelerator.no_sync(self.predict):
                losses = self._add_gradient(generator)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + value / settings.accumulation
        totals = self._averaged(totals)
        norm = self.accelerator.clip_grad_norm_(list(self.weights.values()), settings.max_gradient_norm)
        totals["gradient_norm"] = float(norm) if norm is not None else math.nan
        self._check_finite(step, totals)
        self.optimizer.step()
        self.average.update(step)
        return {**totals, "learning_rate": rate}

    @torch.no_grad()
    def finish(self) -> None:
        """Leave the averaged weights in the U-Net, and the U-Net as plain as it came."""
        self.average.copy_to_weights()
        # Else its forward pass would stay in the precision of the edit.
        self.accelerator.unwrap_model(self.unet, keep_fp32_wrapper=False)
        self.unet.requires_grad_(False).eval()
        if self.settings.gradient_checkpointing:
            self.unet.disable_gradient_checkpointing()

    def _frozen_copy(self) -> UNet2DConditionModel:
        return copy.deepcopy(self.unet).requires_grad_(False).eval().to(self.accelerator.device)

    def _prepare_unet(self) -> None:
        self.unet.requires_grad_(False).eval()
        for weight in self.weights.values():
            weight.requires_grad_(True)
        if self.settings.gradient_checkpointing:
            self.unet.train()  # diffusers checkpoints in training mode alone; these U-Nets have no dropout
            self.unet.enable_gradient_checkpointing()

    def _add_gradient(self, generator: torch.Generator) -> dict[str, float]:
        """Add the gradient of one batch, divided by the number of batches a step has, and return its losses."""
        settings = self.settings
        batch = draw_batch(
            self.data,
            settings,
            self.schedule.timesteps,
            generator=generator,
            device=self.accelerator.device,
            rank=self.accelerator.process_index,
            ranks=self.ranks,
        )
        losses = self._losses(batch)
        loss = (
            settings.weight_mosaic * losses["loss_mosaic"]
            + settings.weight_preserve * losses["loss_preserve"]
            + settings.weight_hold * losses["loss_hold"]
        )
        self.accelerator.backward(loss / settings.accumulation)
        return {name: value.item() for name, value in {**losses, "loss": loss}.items()}

    def _losses(self, batch: EditBatch) -> dict[str, torch.Tensor]:
        """Compute Lm, Lp and Lh of one batch in one pass through the U-Net."""
        schedule, settings, t = self.schedule, self.settings, batch.t
        noised_benign = schedule.noised(batch.benign, batch.benign_noise, t)
        inputs = [schedule.noised(batch.unsafe, batch.noise, t), noised_benign]
        texts = [batch.text, batch.benign_text]
        hold = settings.weight_hold > 0
        if hold:
            inputs.append(schedule.noised(batch.censored, batch.noise, t))
            texts.append(batch.text)
        preserved = self._preserve_target(batch, noised_benign)
        text = concatenate(texts).unet_inputs()
        out = self.predict(torch.cat(inputs), t.repeat(len(inputs)), **text, return_dict=False)[0]
        predicted = out.float().split(len(t))
        wanted = schedule.mosaic_target(batch.unsafe, batch.censored, batch.noise, t, settings.target)
        weight = schedule.clean_error_weight(t) if settings.target == "exact" else None
        held = schedule.truth(batch.censored, batch.noise, t)
        return {
            "loss_mosaic": weighted_mse(predicted[0], wanted, weight),
            "loss_preserve": weighted_mse(predicted[1], preserved),
            "loss_hold": weighted_mse(predicted[2], held, weight) if hold else out.new_zeros(()),
        }

    @torch.no_grad()
    def _preserve_target(self, batch: EditBatch, noised_benign: torch.Tensor) -> torch.Tensor:
        if self.base is None:
            return self.schedule.truth(batch.benign, batch.benign_noise, batch.t)
        with self.accelerator.autocast():
            text = batch.benign_text.unet_inputs()
            return self.base(noised_benign, batch.t, **text, return_dict=False)[0].float()

    def _averaged(self, losses: dict[str, float]) -> dict[str, float]:
        """Average losses over all processes, so that all see the same and stop together."""
        if self.ranks == 1:
            return losses
        mine = torch.tensor(list(losses.values()), device=self.accelerator.device)
        means = self.accelerator.reduce(mine, reduction="mean")
        return dict(zip(losses, means.tolist(), strict=True))  # pyright: ignore[reportAttributeAccessIssue]

    def _check_finite(self, step: int, totals: dict[str, float]) -> None:
        # Under float16 a gradient that overflows is the scaler's to handle: it leaves the step out and scales less.
        scaled = self.accelerator.scaler is not None
        numbers = [value for name, value in totals.items() if not (scaled and name == "gradient_norm")]
        if not all(map(math.isfinite, numbers)):
            raise EditError(
                f"edit: step {step + 1} has loss {totals['loss']} and gradient norm {totals['gradient_norm']}; "
                'expected finite values; lower learning_rate or use mixed_precision = "no"'
            )


def _trainable(unet: UNet2DConditionModel, layers: str) -> dict[str, torch.nn.Parameter]:
    prefix = {"all": "", "down": "down_blocks.", "mid": "mid_block.", "up": "up_blocks."}[layers]
    found = self_attention_weights(unet)
    weights = {name: weight for name, weight in found.items() if name.startswith(prefix)}
    if not weights:
        raise EditError(f"edit: the U-Net has no self-attention layers in {layers!r}; choose other layers")
    return weights


def _rate_factor(step: int, settings: SafeGenSettings) -> float:
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.decay == "constant":
        return 1.0
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def _identity(
    pipeline: StableDiffusionPipeline, data: TripletLatents, settings: SafeGenSettings, seed: int, ranks: int
) -> str:
    """Name the edit that progress belongs to, so that it is never continued on another base, data or settings."""
    # Keys with an underscore say how the configuration was read, and one of them has a random order.
    levels = {key: value for key, value in pipeline.scheduler.config.items() if not key.startswith("_")}
    scheduler = json.dumps(levels, sort_keys=True, default=str)
    digest = hashlib.sha256(f"{settings.model_dump_json()}/{seed}/{ranks}/{scheduler}".encode())
    for tensor in (*pipeline.unet.state_dict().values(), *data.tensors()):
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
