"""The edit's step against the published loop's: the same U-Net, triplets, noise and losses, alternating in one process.

`edit_sd` and `edit_sd_ckpt` are SD-1.4's architecture (random weights, 128 px so that it runs on a CPU), without and
with gradient checkpointing; `edit_miniature` is the shipped miniature. The published loop always checkpoints. Peak
memory of both sides is in `memory_edit`.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.published_loop import PublishedLoop, Step
from benchmarks.results import Comparison, record
from safegen.bootstrap import miniature_checkpoint
from safegen.defences.safegen import EditObservers, SafeGenSettings, TripletLatents, edit_unet, encode_prompts
from safegen.defences.triplet_latents import batch_generator, draw_batch
from safegen.diffusion.checkpoint import load_pipeline
from safegen.diffusion.latents import encode, to_batch
from safegen.diffusion.noise_schedule import noise_schedule
from safegen.diffusion.text_conditioning import TextConditioning
from tests.tiny_pipeline import tiny_scheduler
from tests.true_architectures import SD14_UNET, SD_VAE

SEED, TRIPLETS, TOLERANCE = 1, 8, 1e-5


@dataclass
class Model:
    """What `edit_unet` needs of a pipeline."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: Any


@dataclass
class Race:
    """Our edit; after each of its steps, the published loop does the same one.

    Attributes:
        theirs: The published loop around a copy of the U-Net.
        parts: Steps as the published loop is given them, by step.
        our_seconds: Of our steps.
        their_seconds: Of theirs.
        worst: Largest relative difference of the losses so far.
        our_operations: Floating-point operations of our first step.
        their_operations: Of theirs.
    """

    theirs: PublishedLoop
    parts: list[list[Step]]
    our_seconds: list[float] = field(default_factory=list)
    their_seconds: list[float] = field(default_factory=list)
    worst: float = 0.0
    started: float = 0.0
    our_operations: int = 0
    their_operations: int = 0
    _counting: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Count the operations of the first steps, whose times do not count."""
        self._counter = self._counting.enter_context(operation_counter())
        self.started = time.perf_counter()

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        """Take our time, let them do the step, take theirs."""
        now = time.perf_counter()
        self.our_seconds.append(now - self.started)
        if step == 1:
            self._counting.close()
            self.our_operations = self._counter.get_total_flops()
            with operation_counter() as counter:
                mosaic, preserve = self.theirs.step(self.parts[0])
            self.their_operations = counter.get_total_flops()
        else:
            mosaic, preserve = self.theirs.step(self.parts[step - 1])
        self.started = time.perf_counter()
        self.their_seconds.append(self.started - now)
        for ours, theirs in ((values["loss_mosaic"], mosaic), (values["loss_preserve"], preserve)):
            self.worst = max(self.worst, abs(ours - theirs) / theirs)


def operation_counter() -> FlopCounterMode:
    """Count floating-point operations, those of fused attention on a CPU among them."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward  # noqa: SLF001
    return FlopCounterMode(
        display=False,
        custom_mapping={
            attention: lambda q, k, v, *_, out_shape=None, **__: sdpa_flop_count(q, k, v),  # noqa: ARG005
            backward: lambda g, q, k, v, *_, out_shape=None, **__: sdpa_backward_flop_count(g, q, k, v),  # noqa: ARG005
        },
    )


def race(model: Model, text: TextConditioning, settings: SafeGenSettings, size_px: int) -> Race:
    """Edit a model by both ways and return the times; the first step warms up."""
    generator = torch.Generator().manual_seed(SEED)
    shape = (3, TRIPLETS, size_px, size_px, 3)
    pictures = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).numpy()
    unsafe, censored, benign = (encode(model.vae, list(part)) for part in pictures)
    data = TripletLatents(unsafe, censored, benign, text)
    schedule = noise_schedule(dict(model.scheduler.config))
    batches = [to_batch(list(part)) for part in pictures]
    parts = [
        [
            _published(data, batches, settings, schedule.timesteps, (step, part))
            for part in range(settings.accumulation)
        ]
        for step in range(settings.steps)
    ]
    theirs = PublishedLoop(
        copy.deepcopy(model.unet), model.vae, schedule.alphas_cumprod, learning_rate=settings.learning_rate
    )
    found = Race(theirs, parts)
    found.start()
    edit_unet(model, data, settings, seed=SEED, observers=EditObservers(on_step=found.on_step))  # type: ignore[arg-type]
    return found


def _published(
    data: TripletLatents,
    pictures: list[torch.Tensor],
    settings: SafeGenSettings,
    timesteps: int,
    place: tuple[int, int],
) -> Step:
    """Return the batch that our edit will draw, as the published loop is given it."""
    cpu = torch.device("cpu")
    batch = draw_batch(data, settings, timesteps, generator=batch_generator(SEED, *place), device=cpu)
    unsafe = torch.cat([_places(data.unsafe, one) for one in batch.unsafe])
    benign = torch.cat([_places(data.benign, one) for one in batch.benign])
    chosen = (pictures[0][unsafe], pictures[1][unsafe], pictures[2][benign])
    return Step(chosen, batch.t, batch.noise, batch.benign_noise, batch.text.states)


def _places(latents: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
    return (latents == one).flatten(1).all(dim=1).nonzero()[0]


def sd14(size_px: int) -> tuple[Model, TextConditioning]:
    """Return SD-1.4's U-Net and VAE with random weights, and states of an empty prompt."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**{**SD14_UNET, "sample_size": size_px // 8}).eval()
    vae = AutoencoderKL(**SD_VAE).eval()
    return Model(unet, vae, tiny_scheduler()), TextConditioning(torch.randn(1, 77, 768))


def miniature() -> tuple[Model, TextConditioning]:
    """Return the shipped miniature and the states of its empty prompt.

    It predicts v, whose target the published loop has wrong; here both take its output for the noise, which costs as
    much.
    """
    pipeline = load_pipeline(miniature_checkpoint())
    return Model(pipeline.unet, pipeline.vae, tiny_scheduler()), encode_prompts(pipeline, [])


def measure(name: str, compared: str, bar: str, found: Race, triplets_a_step: int) -> None:
    """Write one race into the results.

    Raises:
        SystemExit: The two sides did not compute the same losses.
    """
    if found.worst > TOLERANCE:
        raise SystemExit(f"{name}: losses differ by {found.worst:.1e}; expected at most {TOLERANCE:.0e}")
    ours, theirs = (sorted(seconds[1:]) for seconds in (found.our_seconds, found.their_seconds))
    rates = [triplets_a_step / seconds[len(seconds) // 2] for seconds in (ours, theirs)]
    comparison = Comparison(*rates, unit="triplets/s", n=triplets_a_step * len(ours))
    operations = [count / triplets_a_step / 1e9 for count in (found.our_operations, found.their_operations)]
    note = (
        f"{compared} Medians of alternating steps; losses agree to {found.worst:.0e}, relatively. A triplet "
        f"takes {operations[0]:.3g} GFLOP, theirs {operations[1]:.3g}: {operations[1] / operations[0]:.2f} times at "
        "the same rate."
    )
    record(name, comparison, compared=note, bar=bar)


def main() -> None:
    """Run the races."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-px", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4, help="optimiser steps, the first of which warms up")
    parser.add_argument("--only", choices=["edit_sd", "edit_sd_ckpt", "edit_miniature"])
    asked = parser.parse_args()
    against = "against the published loop (three VAE encodes, three U-Net passes, gradient checkpointing)"
    published = SafeGenSettings(steps=asked.steps, batch_size=1, accumulation=5)
    for name, saving, bar in (("edit_sd", False, ">= 2.4"), ("edit_sd_ckpt", True, ">= 1.7")):
        if asked.only in (None, name):
            settings = published.model_copy(update={"gradient_checkpointing": saving})
            found = race(*sd14(asked.size_px), settings, asked.size_px)
            how = "with" if saving else "without"
            compared = f"SD-1.4's architecture at {asked.size_px} px, float32, our step {how} checkpointing {against}."
            measure(name, compared, bar, found, 5)
    if asked.only in (None, "edit_miniature"):
        settings = published.model_copy(
            update={"steps": 4 * asked.steps, "batch_size": 16, "accumulation": 1}
        )
        compared = (
            f"The miniature at 48 px, 16 triplets a step, float32, our step without checkpointing {against}."
        )
        measure("edit_miniature", compared, ">= 2", race(*miniature(), settings, 48), 16)


if __name__ == "__main__":
    main()
