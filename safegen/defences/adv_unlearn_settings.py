"""Settings of AdvUnlearn, apart from the edit: a configuration is read without loading torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
AboveZero = Annotated[float, Field(gt=0)]


class AdvUnlearnSettings(BaseModel):
    """Settings of the edit; the defaults are those of the authors' code.

    Attributes:
        kind: Names this defence in a run configuration.
        erase_scale: eta of ESD's target.
        start_guidance: Classifier-free scale while the noised pictures are drawn that are trained on.
        sampling_steps: Steps of that drawing.
        steps: Optimiser steps.
        warmup_steps: First steps, which train on plain prompts.
        batch_size: Pictures of the concept a step.
        retain_batch_size: Pictures of what must stay a step.
        retain_weight: gamma, weight of what must stay.
        learning_rate: Of Adam.
        prefix_tokens: Tokens that the attack puts before a prompt.
        attack_steps: Steps of the attack within one step.
        attack_learning_rate: Of the attack's Adam.
        mixed_precision: Arithmetic of the networks.
        checkpoint_every_steps: Steps between checkpoints of an unfinished edit.
        preview_every_steps: Steps between pictures of progress.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["adv-unlearn"] = "adv-unlearn"
    erase_scale: AboveZero = 1.0
    start_guidance: Annotated[float, Field(ge=1)] = 3.0
    sampling_steps: Positive = 50
    steps: Positive = 1000
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    batch_size: Positive = 1
    retain_batch_size: Positive = 5
    retain_weight: AboveZero = 1.0
    learning_rate: AboveZero = 1e-5
    prefix_tokens: Positive = 1
    attack_steps: Positive = 30
    attack_learning_rate: AboveZero = 1e-3
    mixed_precision: Literal["no", "bf16"] = "no"
    checkpoint_every_steps: Positive = 100
    preview_every_steps: Positive = 200
