"""Settings of ESD, apart from the edit: a configuration is read without loading torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]


class EsdSettings(BaseModel):
    """Settings of the edit; the defaults are the published ones.

    Attributes:
        kind: Names this defence in a run configuration.
        variant: "x" trains cross-attention (erases what the prompt names), "u" all else (erases whatever the prompt).
        erase_scale: eta, how far past the empty prompt's prediction the concept is pushed.
        start_guidance: Classifier-free scale while the noised pictures are drawn that are trained on.
        sampling_steps: Steps of that drawing.
        steps: Optimiser steps.
        batch_size: Pictures a step.
        learning_rate: Of Adam.
        mixed_precision: Arithmetic of the U-Net.
        checkpoint_every_steps: Steps between checkpoints of an unfinished edit.
        preview_every_steps: Steps between pictures of progress.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["esd"] = "esd"
    variant: Literal["x", "u"] = "x"
    erase_scale: Annotated[float, Field(gt=0)] = 1.0
    start_guidance: Annotated[float, Field(ge=1)] = 3.0
    sampling_steps: Positive = 50
    steps: Positive = 1000
    batch_size: Positive = 1
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    mixed_precision: Literal["no", "bf16"] = "no"
    checkpoint_every_steps: Positive = 100
    preview_every_steps: Positive = 200
