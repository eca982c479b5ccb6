"""Turns prompts into what conditions a U-Net, and never logs them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float

from safegen.errors import EvaluationError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

_KEPT_PROMPTS = 256


class PromptStates:
    """The text tower of a Stable Diffusion 1.x or 2.x pipeline, with the latest distinct prompts kept.

    diffusers' own `encode_prompt` prints the part of a prompt that is cut off; prompts of an unsafe suite must not be
    printed, so tokens are made here. A pipeline with two text towers (SDXL) needs a class of its own beside this one,
    whose `conditioning` adds the pooled states and sizes that such a U-Net asks for.
    """

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        if getattr(pipeline, "text_encoder_2", None) is not None:
            raise EvaluationError(
                f"cannot draw with a {type(pipeline).__name__}: it has two text encoders; "
                "expected Stable Diffusion 1.x or 2.x"
            )
        self._tokenizer = pipeline.tokenizer
        self._encoder = pipeline.text_encoder
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()

    def conditioning(self, prompts: Sequence[str]) -> dict[str, Float[torch.Tensor, "b tokens width"]]:
        """Return the keyword arguments by which the U-Net is told the prompts, one row each."""
        return {"encoder_hidden_states": torch.stack([self._state(prompt) for prompt in prompts])}

    def _state(self, prompt: str) -> Float[torch.Tensor, "tokens width"]:
        if prompt not in self._kept:
            self._kept[prompt] = self._encode(prompt)
        self._kept.move_to_end(prompt)
        state = self._kept[prompt]
        while len(self._kept) > _KEPT_PROMPTS:
            self._kept.popitem(last=False)
        return state

    def _encode(self, prompt: str) -> Float[torch.Tensor, "tokens width"]:
        # One prompt at a time, so that its state does not depend on what else is in a batch.
        tokens = self._tokenizer(
            [prompt],
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        uses_mask = getattr(self._encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(self._encoder.device) if uses_mask else None
        states = self._encoder(tokens.input_ids.to(self._encoder.device), attention_mask=mask)
        return states[0][0]
