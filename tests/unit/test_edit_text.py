"""What the pictures of an edit are conditioned on."""

from __future__ import annotations

import pytest
import torch

from safegen.defences.safegen_settings import SafeGenSettings
from safegen.defences.triplet_latents import TripletLatents, draw_batch

PICTURES, PROMPTS = 6, 9


def drawn_rows(own: list[int] | None, **changes: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which picture and which prompt each of many draws took: both are told by their value."""
    numbers = torch.arange(PICTURES, dtype=torch.float32).reshape(-1, 1, 1, 1)
    prompts = torch.arange(PROMPTS, dtype=torch.float32).reshape(-1, 1, 1)
    rows = None if own is None else torch.tensor(own)
    data = TripletLatents(numbers, numbers, numbers, prompts, own_prompt=rows, own_benign_prompt=rows)
    settings = SafeGenSettings(text="mixed", batch_size=4000, **changes)
    generator = torch.Generator().manual_seed(0)
    batch = draw_batch(data, settings, 1000, generator=generator, device=torch.device("cpu"))
    return batch.benign.flatten().long(), batch.benign_text.flatten().long()


def test_a_picture_may_be_conditioned_on_its_own_caption() -> None:
    picture, prompt = drawn_rows([3, 4, 5, 6, 7, 8], own_text_rate=1.0, empty_text_rate=0.0)
    assert torch.equal(prompt, picture + 3)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_share_of_own_captions_is_that_of_the_settings(share: float) -> None:
    picture, prompt = drawn_rows([3, 4, 5, 6, 7, 8], own_text_rate=share, empty_text_rate=0.0)
    expected = share + (1 - share) / (PROMPTS - 1)  # chance hits the own caption as well
    assert (prompt == picture + 3).float().mean().item() == pytest.approx(expected, abs=0.03)


def test_empty_prompts_keep_their_share() -> None:
    _, prompt = drawn_rows([3, 4, 5, 6, 7, 8], own_text_rate=0.5, empty_text_rate=0.25)
    assert (prompt == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("own", [None, [0] * PICTURES])
def test_a_picture_without_a_caption_gets_any(own: list[int] | None) -> None:
    _, prompt = drawn_rows(own, own_text_rate=1.0, empty_text_rate=0.0)
    assert set(prompt.tolist()) == set(range(1, PROMPTS))
