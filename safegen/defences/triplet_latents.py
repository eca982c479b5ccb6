"""What an edit is trained on: latents of triplets, embeddings of prompts, and the batches drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int

from safegen.defences.safegen_settings import SafeGenSettings
from safegen.errors import EditError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

_PROMPTS_AT_A_TIME = 64


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
        own_prompt: Row in `prompts` of each unsafe picture's own caption, 0 where it has none; None knows of none.
        own_benign_prompt: The same of benign pictures, in `prompts_of_benign`.
    """

    unsafe: Float[torch.Tensor, "n channels height width"]
    censored: Float[torch.Tensor, "n channels height width"]
    benign: Float[torch.Tensor, "m channels height width"]
    prompts: Float[torch.Tensor, "prompts tokens text_width"]
    benign_prompts: Float[torch.Tensor, "benign_prompts tokens text_width"] | None = None
    own_prompt: Int[torch.Tensor, "n"] | None = None
    own_benign_prompt: Int[torch.Tensor, "m"] | None = None

    @property
    def prompts_of_benign(self) -> Float[torch.Tensor, "prompts tokens text_width"]:
        """Text embeddings to condition benign pictures on."""
        return self.prompts if self.benign_prompts is None else self.benign_prompts

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Return all of it, for a digest."""
        own = (one for one in (self.own_prompt, self.own_benign_prompt) if one is not None)
        return (self.unsafe, self.censored, self.benign, self.prompts, self.prompts_of_benign, *own)


@dataclass(frozen=True, slots=True)
class EditBatch:
    """One pass: pictures, noise levels, noise and text; all have the same length b, on one device.

    The noise level t is that of the unsafe, the censored and the benign picture alike.
    """

    unsafe: Float[torch.Tensor, "b *latent"]
    censored: Float[torch.Tensor, "b *latent"]
    benign: Float[torch.Tensor, "b *latent"]
    t: Int[torch.Tensor, "b"]
    noise: Float[torch.Tensor, "b *latent"]
    benign_noise: Float[torch.Tensor, "b *latent"]
    text: Float[torch.Tensor, "b tokens text_width"]
    benign_text: Float[torch.Tensor, "b tokens text_width"]


def check_triplets(data: TripletLatents, settings: SafeGenSettings) -> None:
    """Refuse data that an edit cannot be trained on.

    Raises:
        EditError: Says what is missing or does not fit.
    """
    if len(data.unsafe) == 0 or len(data.benign) == 0:
        raise EditError(
            f"edit: {len(data.unsafe)} unsafe and {len(data.benign)} benign pictures; expected at least one of each"
        )
    if data.unsafe.shape != data.censored.shape:
        raise EditError(
            f"edit: unsafe latents are {tuple(data.unsafe.shape)} and censored ones {tuple(data.censored.shape)}; "
            "expected the same pictures in the same order"
        )
    if data.unsafe.shape[1:] != data.benign.shape[1:]:
        raise EditError(
            f"edit: an unsafe latent is {tuple(data.unsafe.shape[1:])} and a benign one "
            f"{tuple(data.benign.shape[1:])}; expected pictures of one size"
        )
    fewest = min(len(data.prompts), len(data.prompts_of_benign))
    if fewest == 0:
        raise EditError("edit: there are no prompts; expected at least the empty one, see encode_prompts")
    if settings.text == "mixed" and fewest < 2:
        raise EditError(
            'edit: text = "mixed" needs captions in the triplets; add captions or use text = "empty"'
        )


def draw_batch(
    data: TripletLatents,
    settings: SafeGenSettings,
    timesteps: int,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> EditBatch:
    """Draw one batch; pictures are drawn with replacement.

    Args:
        data: What to draw from, on the CPU.
        settings: Batch size and text.
        timesteps: Number of noise levels.
        generator: Source of all randomness, on the CPU, so that a batch is the same on every device.
        device: Where the batch goes.
    """
    size = settings.batch_size
    picked = torch.randint(len(data.unsafe), (size,), generator=generator)
    unsafe, censored = data.unsafe[picked], data.censored[picked]
    picked_benign = torch.randint(len(data.benign), (size,), generator=generator)
    benign = data.benign[picked_benign]
    t = torch.randint(timesteps, (size,), generator=generator)
    noise = torch.randn(unsafe.shape, generator=generator)
    benign_noise = torch.randn(benign.shape, generator=generator)
    own = None if data.own_prompt is None else data.own_prompt[picked]
    own_benign = None if data.own_benign_prompt is None else data.own_benign_prompt[picked_benign]
    text = _draw_text(data.prompts, own, settings, generator)
    benign_text = _draw_text(data.prompts_of_benign, own_benign, settings, generator)
    parts = (unsafe, censored, benign, t, noise, benign_noise, text, benign_text)
    return EditBatch(*(part.to(device) for part in parts))


def _draw_text(
    prompts: Float[torch.Tensor, "prompts tokens text_width"],
    own: Int[torch.Tensor, "b"] | None,
    settings: SafeGenSettings,
    generator: torch.Generator,
) -> Float[torch.Tensor, "b tokens text_width"]:
    """Draw prompts: the empty one, the pictures' own, or any, by the shares that the settings give."""
    size = settings.batch_size
    if settings.text == "empty":
        return prompts[:1].expand(size, -1, -1)
    rows = torch.randint(1, len(prompts), (size,), generator=generator)
    empty = torch.rand(size, generator=generator) < settings.empty_text_rate
    if own is not None and settings.own_text_rate > 0:
        takes_own = torch.rand(size, generator=generator) < settings.own_text_rate
        rows = torch.where(takes_own & (own > 0), own, rows)
    return prompts[torch.where(empty, 0, rows)]


@torch.no_grad()
def encode_prompts(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str]
) -> Float[torch.Tensor, "prompts tokens text_width"]:
    """Return text embeddings with the empty prompt in row 0, then each distinct prompt in sorted order.

    Returns:
        float32 on the CPU.
    """
    texts = _distinct(prompts)
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    rows: list[torch.Tensor] = []
    for start in range(0, len(texts), _PROMPTS_AT_A_TIME):
        tokens = tokenizer(
            texts[start : start + _PROMPTS_AT_A_TIME],
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        rows.append(encoder(tokens.input_ids.to(encoder.device))[0].float().cpu())
    return torch.cat(rows)


def own_rows(prompts: Sequence[str]) -> Int[torch.Tensor, "n"]:
    """Return the row of each prompt in what `encode_prompts` makes of them.

    >>> own_rows(["key", "", "bell", "key"])
    tensor([2, 0, 1, 2])
    """
    row_of = {prompt: row for row, prompt in enumerate(_distinct(prompts))}
    return torch.tensor([row_of[prompt] for prompt in prompts])


def _distinct(prompts: Sequence[str]) -> list[str]:
    return ["", *sorted({prompt for prompt in prompts if prompt})]
