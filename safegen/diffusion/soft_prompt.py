"""Prompts that begin with learned embeddings in place of words, and their states, through which gradients flow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer


def prompt_tokens(
    tokenizer: CLIPTokenizer, prompts: Sequence[str], *, prefix: int = 0
) -> Int[torch.Tensor, "b tokens"]:
    """Return the tokens of prompts, with `prefix` places after the token of the beginning; their ids mean nothing.

    What does not fit is cut off, the token of the end apart.
    """
    length = tokenizer.model_max_length
    ids = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    if prefix:
        places = ids[:, :1].expand(-1, prefix)
        ids = torch.cat([ids[:, :1], places, ids[:, 1:]], dim=1)[:, :length].clone()
        end = cast("int", tokenizer.eos_token_id)
        cut = ~ids.eq(end).any(dim=1)
        ids[cut, -1] = end
    return ids


def prompt_states(
    encoder: CLIPTextModel,
    ids: Int[torch.Tensor, "b tokens"],
    prefix: Float[torch.Tensor, "places width"] | None = None,
) -> Float[torch.Tensor, "b tokens width"]:
    """Return the states that condition the U-Net of SD 1.x or 2.x.

    Args:
        encoder: The text tower.
        ids: From `prompt_tokens`, with as many places as the prefix has.
        prefix: Embeddings that stand in these places.
    """
    ids = ids.to(encoder.device)
    if prefix is None:
        return encoder(ids)[0]
    with _embeddings_in_place(encoder, prefix):
        return encoder(ids)[0]


@contextmanager
def _embeddings_in_place(encoder: CLIPTextModel, prefix: torch.Tensor) -> Iterator[None]:
    """Let the places after the first token be embedded as `prefix`; the tower itself takes token ids alone."""

    def put(_layer: torch.nn.Module, _ids: object, embedded: torch.Tensor) -> torch.Tensor:
        places = prefix.to(embedded.dtype).expand(len(embedded), -1, -1)
        return torch.cat([embedded[:, :1], places, embedded[:, 1 + prefix.shape[0] :]], dim=1)

    handle = encoder.get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()
