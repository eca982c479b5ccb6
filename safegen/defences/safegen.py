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
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field

from safegen.defences.edit_checkpoint import load_progress, save_progress
from safegen.diffusion.delta import self_attention_weights
from safegen.diffusion.losses import weighted_mse
from safegen.diffusion.noise_schedule import NoiseSchedule, noise_schedule
from safegen.errors import EditError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

_log = logging.getLogger(__name__)

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]


class SafeGenSettings(BaseModel):
    """Settings of the edit; the defaults are the published ones.

    Attributes:
        kind: Names this defence in a run configuration.
        target: What a noised unsafe picture shall be predicted as, see `NoiseSchedule.mosaic_target`.
        text: "empty" conditions on the empty prompt, "mixed" on random prompts of the triplets and the empty one:
            unsafe and censored pictures on captions of unsafe ones, benign pictures on captions of benign ones.
        preserve: Hold benign pictures to their noise, or to what the frozen base predicts.
        layers: Which self-attention layers: all, or those of one part of the U-Net.
        weight_mosaic: w_m.
        weight_preserve: w_p.
        weight_hold: w_h; 0 leaves the loss out, as published.
        steps: Optimiser steps.
        batch_size: Triplets per forward pass.
        accumulation: Forward passes per optimiser step.
        learning_rate: Of AdamW.
        warmup_steps: Steps of linear warm-up.
        decay: Learning rate after warm-up: held, or a half cosine to zero.
        weight_decay: Of AdamW.
        max_gradient_norm: Gradients are scaled down to it.
        ema_decay: Decay of the running average of the weights that becomes the result; 0 takes the last weights.
        empty_text_rate: Share of empty prompts where text is "mixed".
        mixed_precision: Of the forward pass.
        gradient_checkpointing: Save memory, spend time.
        checkpoint_every_steps: Steps between checkpoints of an unfinished edit.
        preview_every_steps: Steps between pictures of progress.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["safegen"] = "safegen"
    target: Literal["paper_code", "exact"] = "paper_code"
    text: Literal["empty", "mixed"] = "empty"
    preserve: Literal["noise", "base"] = "noise"
    layers: Literal["all", "down", "mid", "up"] = "all"
    weight_mosaic: Rate = 0.1
    weight_preserve: Rate = 0.9
    weight_hold: Rate = 0.0
    steps: Positive = 1000
    batch_size: Positive = 1
    accumulation: Positive = 5
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    decay: Literal["constant", "cosine"] = "constant"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    empty_text_rate: Rate = 0.25
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_checkpointing: bool = False
    checkpoint_every_steps: Positive = 100
    preview_every_steps: Positive = 200


@dataclass(frozen=True, slots=True)
class TripletLatents:
    """Training data of an edit, encoded once.

    Attributes:
        unsafe: Scaled latents of unsafe pictures, float32.
        censored: Latents of the same pictures, censored, in the same order.
        benign: Latents of benign pictures; may be another number.
        prompts: Text embeddings to condition unsafe and censored pictures on; row 0 is the empty prompt.
        benign_prompts: The same for benign pictures; None takes `prompts` for them too. Where a picture is all but
            noise only the text tells what it will be, so prompts of the concept on benign pictures would hold the
            edited model to drawing it.
    """

    unsafe: Float[torch.Tensor, "n channels height width"]
    censored: Float[torch.Tensor, "n channels height width"]
    benign: Float[torch.Tensor, "m channels height width"]
    prompts: Float[torch.Tensor, "prompts tokens text_width"]
    benign_prompts: Float[torch.Tensor, "prompts tokens text_width"] | None = None


StepObserver = Callable[[int, Mapping[str, float]], None]
"""Called after every optimiser step with its number (from 1) and its losses, gradient norm and learning rate."""

PreviewObserver = Callable[[int, "UNet2DConditionModel"], None]
"""Called now and then with the U-Net as it would be exported at this step."""


@dataclass(frozen=True, slots=True)
class EditObservers:
    """Who is told of progress."""

    on_step: StepObserver = lambda step, values: None
    on_preview: PreviewObserver = lambda step, unet: None


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

    Args:
        pipeline: The base model.
        data: Triplets.
        settings: How to edit.
        seed: Seed of the whole edit.
        progress_file: Where unfinished work is kept; None keeps none.
        observers: Who is told of progress.

    Raises:
        EditError: The loss is not finite, a batch is larger than the data, or there is nothing to edit.
    """
    _check(data, settings)
    observers = observers or EditObservers()
    edit = _Edit(pipeline, data, settings, seed)
    first_step = 0
    if progress_file is not None and progress_file.exists():
        first_step = load_progress(progress_file, edit.identity, edit.weights, edit.optimizer, edit.average)
        _log.info("edit: going on at step %d of %d", first_step, settings.steps)
    for step in range(first_step, settings.steps):
        values = edit.step(step)
        done = step + 1
        observers.on_step(done, values)
        if (
            progress_file is not None
            and done % settings.checkpoint_every_steps == 0
            and done < settings.steps
        ):
            save_progress(progress_file, edit.identity, edit.weights, edit.optimizer, edit.average, done)
        if done % settings.preview_every_steps == 0 and done < settings.steps:
            with edit.averaged_weights():
                observers.on_preview(done, edit.unet)
    edit.finish()


def _check(data: TripletLatents, settings: SafeGenSettings) -> None:
    if len(data.unsafe) == 0 or len(data.benign) == 0:
        raise EditError(
            f"edit: {len(data.unsafe)} unsafe and {len(data.benign)} benign pictures; expected at least one of each"
        )
    if data.unsafe.shape != data.censored.shape:
        raise EditError(
            f"edit: unsafe latents are {tuple(data.unsafe.shape)} and censored ones {tuple(data.censored.shape)}; "
            "expected the same pictures in the same order"
        )
    pools = [data.prompts] if data.benign_prompts is None else [data.prompts, data.benign_prompts]
    if settings.text == "mixed" and min(map(len, pools)) < 2:
        raise EditError(
            'edit: text = "mixed" needs captions in the triplets; add captions or use text = "empty"'
        )


class _Edit:
    """State of one edit: weights, optimiser, running average, and the step that changes them."""

    def __init__(
        self, pipeline: StableDiffusionPipeline, data: TripletLatents, settings: SafeGenSettings, seed: int
    ) -> None:
        from accelerate import Accelerator

        self.settings, self.seed, self.data = settings, seed, data
        self.schedule: NoiseSchedule = noise_schedule(dict(pipeline.scheduler.config))
        self.unet: UNet2DConditionModel = pipeline.unet
        self.base = copy.deepcopy(self.unet).requires_grad_(False) if settings.preserve == "base" else None
        self.weights = _trainable(self.unet, settings.layers)
        self.unet.requires_grad_(False).eval()
        for weight in self.weights.values():
            weight.requires_grad_(True)
        if settings.gradient_checkpointing:
            self.unet.train()
            self.unet.enable_gradient_checkpointing()
        self.accelerator = Accelerator(mixed_precision=settings.mixed_precision)
        optimizer = torch.optim.AdamW(
            self.weights.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.predict, self.optimizer = self.accelerator.prepare(self.unet, optimizer)
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.identity = _identity(data, settings, seed)

    def step(self, step: int) -> dict[str, float]:
        """Do one optimiser step and return what happened."""
        settings = self.settings
        rate = settings.learning_rate * _rate_factor(step, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, float] = {}
        for part in range(settings.accumulation):
            generator = torch.Generator().manual_seed(_seed_of(self.seed, step, part))
            losses = self._losses(generator)
            loss = (
                settings.weight_mosaic * losses["loss_mosaic"]
                + settings.weight_preserve * losses["loss_preserve"]
                + settings.weight_hold * losses["loss_hold"]
            )
            self.accelerator.backward(loss / settings.accumulation)
            for name, value in {**losses, "loss": loss}.items():
                totals[name] = totals.get(name, 0.0) + value.item() / settings.accumulation
        norm = self.accelerator.clip_grad_norm_(self.weights.values(), settings.max_gradient_norm)
        totals["gradient_norm"] = float(norm)
        if not all(value == value and abs(value) != float("inf") for value in totals.values()):
            raise EditError(
                f"edit: step {step + 1} has loss {totals['loss']} and gradient norm {totals['gradient_norm']}; "
                'expected finite values; lower learning_rate or use mixed_precision = "no"'
            )
        self.optimizer.step()
        self._update_average(step)
        return {**totals, "learning_rate": rate}

    def _losses(self, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Compute Lm, Lp and Lh of one batch in one pass through the U-Net."""
        settings, schedule, data = self.settings, self.schedule, self.data
        size = settings.batch_size
        device = self.accelerator.device
        picked = torch.randint(len(data.unsafe), (size,), generator=generator)
        unsafe, censored = data.unsafe[picked].to(device), data.censored[picked].to(device)
        benign = data.benign[torch.randint(len(data.benign), (size,), generator=generator)].to(device)
        t = torch.randint(schedule.timesteps, (size,), generator=generator).to(device)
        noise = torch.randn(unsafe.shape, generator=generator).to(device)
        benign_noise = torch.randn(benign.shape, generator=generator).to(device)
        text = self._text(data.prompts, size, generator).to(device)
        own = data.prompts if data.benign_prompts is None else data.benign_prompts
        benign_text = self._text(own, size, generator).to(device)
        inputs = [schedule.noised(unsafe, noise, t), schedule.noised(benign, benign_noise, t)]
        texts = [text, benign_text]
        if settings.weight_hold > 0:
            inputs.append(schedule.noised(censored, noise, t))
            texts.append(text)
        steps_t = t.repeat(len(inputs))
        out = self.predict(torch.cat(inputs), steps_t, torch.cat(texts), return_dict=False)[0].float()
        predicted = out.split(size)
        mosaic_target = schedule.mosaic_target(unsafe, censored, noise, t, settings.target)
        weight = schedule.clean_error_weight(t) if settings.target == "exact" else None
        losses = {
            "loss_mosaic": weighted_mse(predicted[0], mosaic_target, weight),
            "loss_preserve": weighted_mse(
                predicted[1], self._benign_target(inputs[1], benign, benign_noise, t, benign_text)
            ),
            "loss_hold": out.new_zeros(()),
        }
        if settings.weight_hold > 0:
            losses["loss_hold"] = weighted_mse(predicted[2], schedule.truth(censored, noise, t), weight)
        return losses

    @torch.no_grad()
    def _benign_target(
        self,
        noised: torch.Tensor,
        benign: torch.Tensor,
        noise: torch.Tensor,
        t: torch.Tensor,
        text: torch.Tensor,
    ) -> torch.Tensor:
        if self.base is None:
            return self.schedule.truth(benign, noise, t)
        with self.accelerator.autocast():
            return self.base(noised, t, text, return_dict=False)[0].float()

    def _text(self, prompts: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
        """Draw prompts without regard to the single picture: what it shows and what is asked for need not agree."""
        if self.settings.text == "empty":
            return prompts[:1].expand(size, -1, -1)
        rows = torch.randint(1, len(prompts), (size,), generator=generator)
        empty = torch.rand(size, generator=generator) < self.settings.empty_text_rate
        return prompts[torch.where(empty, 0, rows)]

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        decay = min(self.settings.ema_decay, (1 + step) / (10 + step))
        for name, weight in self.weights.items():
            self.average[name].lerp_(weight, 1 - decay)

    def averaged_weights(self) -> _Swapped:
        """Return a context in which the U-Net has the averaged weights."""
        return _Swapped(self.weights, self.average)

    @torch.no_grad()
    def finish(self) -> None:
        """Leave the averaged weights in the U-Net."""
        for name, weight in self.weights.items():
            weight.copy_(self.average[name])
        self.unet.requires_grad_(False).eval()
        if self.settings.gradient_checkpointing:
            self.unet.disable_gradient_checkpointing()


class _Swapped:
    """Puts other values into weights for a while."""

    def __init__(self, weights: dict[str, torch.nn.Parameter], values: dict[str, torch.Tensor]) -> None:
        self._weights, self._values = weights, values
        self._kept: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def __enter__(self) -> None:
        for name, weight in self._weights.items():
            self._kept[name] = weight.detach().clone()
            weight.copy_(self._values[name])

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        for name, weight in self._weights.items():
            weight.copy_(self._kept[name])


def _trainable(unet: UNet2DConditionModel, layers: str) -> dict[str, torch.nn.Parameter]:
    prefix = {"all": "", "down": "down_blocks.", "mid": "mid_block.", "up": "up_blocks."}[layers]
    weights = {
        name: weight for name, weight in self_attention_weights(unet).items() if name.startswith(prefix)
    }
    if not weights:
        raise EditError(f"edit: the U-Net has no self-attention layers in {layers!r}; choose other layers")
    return weights


def _rate_factor(step: int, settings: SafeGenSettings) -> float:
    import math

    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.decay == "constant":
        return 1.0
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def _seed_of(seed: int, step: int, part: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{part}".encode()).digest()[:7], "big")


def _identity(data: TripletLatents, settings: SafeGenSettings, seed: int) -> str:
    """Name the edit that progress belongs to, so that it is never continued with other data or settings."""
    digest = hashlib.sha256(f"{settings.model_dump_json()}/{seed}".encode())
    for tensor in (data.unsafe, data.censored, data.benign, data.prompts, data.benign_prompts):
        if tensor is not None:
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def encode_prompts(pipeline: StableDiffusionPipeline, prompts: Sequence[str]) -> torch.Tensor:
    """Return text embeddings with the empty prompt in row 0, then each distinct prompt in sorted order.

    Returns:
        float32 (1 + distinct prompts, tokens, text width) on the CPU.
    """
    texts = ["", *sorted({prompt for prompt in prompts if prompt})]
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    rows: list[torch.Tensor] = []
    with torch.no_grad():
        for start in range(0, len(texts), 64):
            tokens = tokenizer(
                texts[start : start + 64],
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            rows.append(encoder(tokens.input_ids.to(encoder.device))[0].float().cpu())
    return torch.cat(rows)
