"""Turns prompts into what conditions a U-Net, and never logs them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from safegen.diffusion.text_conditioning import TextConditioning, concatenate
from safegen.errors import EvaluationError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer

_KEPT_PROMPTS = 256
_SIZES = 6


class PromptStates:
    """The text towers of a Stable Diffusion pipeline, with the latest distinct prompts kept.

    SD 1.x and 2.x have one tower, whose last states are taken. SDXL has two: the last but one states of both side by
    side, the pooled state of the second, and the picture's size. Where an SDXL checkpoint says
    `force_zeros_for_empty_prompt`, the empty prompt is all zeros, which is what it was trained to take for none.

    diffusers' own `encode_prompt` prints the part of a prompt that is cut off; prompts of an unsafe suite must not be
    printed, so tokens are made here.
    """

    def __init__(self, pipeline: StableDiffusionPipeline, size_px: tuple[int, int]) -> None:
        """Begin with no prompt kept.

        Args:
            pipeline: SD 1.x, 2.x or SDXL.
            size_px: Height and width of the pictures; SDXL is told.

        Raises:
            EvaluationError: The U-Net asks for other conditions (a refiner, for example).
        """
        self._tower = (pipeline.tokenizer, pipeline.text_encoder)
        second = getattr(pipeline, "text_encoder_2", None)
        self._second = None if second is None else (cast("Any", pipeline).tokenizer_2, second)
        self._zeros_for_empty = second is not None and pipeline.config.get(
            "force_zeros_for_empty_prompt", True
        )
        height, width = size_px
        self._time_ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32)
        self._kept: OrderedDict[str, TextConditioning] = OrderedDict()
        _check_conditions(pipeline, second)

    def conditioning(self, prompts: Sequence[str]) -> TextConditioning:
        """Return the conditions of the prompts, one row each, on the device of the text towers."""
        return concatenate([self._state(prompt) for prompt in prompts])

    def _state(self, prompt: str) -> TextConditioning:
        if prompt not in self._kept:
            self._kept[prompt] = self._encode(prompt)
        self._kept.move_to_end(prompt)
        state = self._kept[prompt]
        while len(self._kept) > _KEPT_PROMPTS:
            self._kept.popitem(last=False)
        return state

    def _encode(self, prompt: str) -> TextConditioning:
        # One prompt at a time, so that its state does not depend on what else is in a batch.
        if self._second is None:
            return TextConditioning(_run_tower(*self._tower, prompt)[0])
        first, second = (_run_tower(*tower, prompt) for tower in (self._tower, self._second))
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        pooled = second[0]
        if self._zeros_for_empty and not prompt:
            states, pooled = torch.zeros_like(states), torch.zeros_like(pooled)
        return TextConditioning(states, pooled, self._time_ids.to(states.device))


def _run_tower(
    tokenizer: CLIPTokenizer, encoder: Any, prompt: str
) -> Any:  # Any: two classes, one form of output
    tokens = tokenizer(
        [prompt],
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    uses_mask = getattr(encoder.config, "use_attention_mask", False)
    mask = tokens.attention_mask.to(encoder.device) if uses_mask else None
    return encoder(tokens.input_ids.to(encoder.device), attention_mask=mask, output_hidden_states=True)


def _check_conditions(pipeline: StableDiffusionPipeline, second: Any) -> None:
    config = pipeline.unet.config
    asked = config.get("projection_class_embeddings_input_dim") if config.get("addition_embed_type") else None
    given = None
    if second is not None:
        given = _SIZES * (config.get("addition_time_embed_dim") or 0) + second.config.projection_dim
    if asked != given:
        raise EvaluationError(
            f"cannot condition the U-Net of this {type(pipeline).__name__}: it takes added conditions of width "
            f"{asked}, its text towers and sizes make {given}; expected SD 1.x, SD 2.x or an SDXL base"
        )
