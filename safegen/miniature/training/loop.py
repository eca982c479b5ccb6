"""The one training loop: seeded by step, checkpointed, resumable to the same weights."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

_log = logging.getLogger(__name__)

LossOfStep = Callable[[int, torch.Generator], tuple[torch.Tensor, dict[str, float]]]
"""Computes the loss of one step from its number and a generator seeded by it; also returns values to log."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast to train.

    Attributes:
        steps: Number of optimiser steps.
        batch_size: Pictures per step.
        learning_rate: Peak rate of AdamW, reached after `warmup_steps`, then a half cosine down to 2 %.
        warmup_steps: Steps of linear warm-up.
        weight_decay: AdamW's decoupled weight decay.
        ema_decay: Largest decay of the running average of weights that is exported.
        seed: Seed of initialisation and of every step.
        checkpoint_every_s: Seconds between checkpoints.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 100
    weight_decay: float = 0.01
    ema_decay: float = 0.998
    seed: int = 0
    checkpoint_every_s: float = 120.0


def fit(module: nn.Module, loss_of_step: LossOfStep, recipe: Recipe, checkpoint: Path) -> None:
    """Train a module in place and leave the averaged weights in it.

    A checkpoint beside `checkpoint` (``.pt``, tensors only) lets a killed run go on where it was. One JSON line
    every 50 steps goes to the same path with suffix ``.jsonl``.

    Args:
        module: What is trained.
        loss_of_step: The loss; it draws its batch from the step's number and generator alone.
        recipe: Length, rates, seed.
        checkpoint: Where progress is kept.
    """
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.99)
    )
    average = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    first_step = _resume(checkpoint, module, optimizer, average)
    saved_at = time.monotonic()
    bar = tqdm(range(first_step, recipe.steps), initial=first_step, total=recipe.steps, desc=checkpoint.stem)
    module.train()
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _rate_factor(step, recipe)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        loss, values = loss_of_step(step, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        _update_average(average, module, min(recipe.ema_decay, (1 + step) / (10 + step)))
        if step % 50 == 0 or step == recipe.steps - 1:
            _append_log(
                checkpoint, {"step": step, "loss": loss.item(), "gradient_norm": norm.item(), **values}
            )
            bar.set_postfix(loss=f"{loss.item():.4f}")
        if time.monotonic() - saved_at > recipe.checkpoint_every_s or step == recipe.steps - 1:
            _save(checkpoint, module, optimizer, average, step + 1)
            saved_at = time.monotonic()
    module.load_state_dict(average)
    module.eval()


def _rate_factor(step: int, recipe: Recipe) -> float:
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def _update_average(average: dict[str, torch.Tensor], module: nn.Module, decay: float) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.dtype.is_floating_point:
            average[name].lerp_(tensor, 1 - decay)
        else:
            average[name].copy_(tensor)


def _save(
    checkpoint: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, torch.Tensor],
    step: int,
) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    temporary = checkpoint.with_suffix(".tmp")
    state = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average,
        "step": step,
    }
    torch.save(state, temporary)
    temporary.replace(checkpoint)


def _resume(
    checkpoint: Path, module: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, torch.Tensor]
) -> int:
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    for name, tensor in state["average"].items():
        average[name].copy_(tensor)
    _log.info("%s: going on at step %d", checkpoint.name, state["step"])
    return int(state["step"])


def _append_log(checkpoint: Path, values: dict[str, float]) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with checkpoint.with_suffix(".jsonl").open("a") as lines:
        lines.write(json.dumps({key: round(value, 6) for key, value in values.items()}) + "\n")
