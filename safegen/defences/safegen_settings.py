"""Settings of SafeGen's edit, apart from the edit: a configuration is read without loading torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

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
        own_text_rate: Of the others, the share that is the picture's own caption, where it has one: while a picture is
            drawn, what it shows and what is asked for do agree.
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
    own_text_rate: Rate = 0.0
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_checkpointing: bool = False
    checkpoint_every_steps: Positive = 100
    preview_every_steps: Positive = 200
