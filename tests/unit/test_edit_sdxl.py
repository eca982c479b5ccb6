from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPTokenizer

from safegen.defences.safegen import SafeGenSettings, TripletLatents, edit_unet, encode_prompts
from safegen.errors import EvaluationError
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer, tiny_xl_pipeline

SETTINGS = SafeGenSettings(steps=2, accumulation=1, batch_size=2, learning_rate=1e-2)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("text", ["empty", "mixed"])
@pytest.mark.parametrize("preserve", ["noise", "base"])
def test_sdxl_is_edited_in_self_attention_alone_under_its_own_conditions(
    tokenizer: CLIPTokenizer, text: str, preserve: str
) -> None:
    pipeline = tiny_xl_pipeline(tokenizer)
    generator = torch.Generator().manual_seed(5)
    unsafe, censored, benign = (torch.randn(4, 4, 8, 8, generator=generator) for _ in range(3))
    prompts = encode_prompts(pipeline, ["an axe", "a key"], size_px=(16, 24))
    before = {name: weight.detach().clone() for name, weight in pipeline.unet.state_dict().items()}
    seen: list[dict[str, Any]] = []
    handle = pipeline.unet.register_forward_pre_hook(
        lambda _, inputs, named: seen.append(named), with_kwargs=True
    )
    chosen = SETTINGS.model_copy(update={"text": text, "preserve": preserve})
    edit_unet(pipeline, TripletLatents(unsafe, censored, benign, prompts), chosen, seed=1)  # type: ignore[arg-type]
    handle.remove()
    after = pipeline.unet.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".attn1." in name}
    added = seen[-1][
        "added_cond_kwargs"
    ]  # a frozen copy of the base has the hook as well, and is asked first
    assert added["time_ids"].tolist() == [[16, 24, 0, 0, 16, 24]] * 4
    assert added["text_embeds"].shape == (4, 24)


def test_prompts_are_encoded_as_the_sdxl_pipeline_encodes_them(tokenizer: CLIPTokenizer) -> None:
    pipeline = tiny_xl_pipeline(tokenizer)
    ours = encode_prompts(pipeline, ["an axe"])  # type: ignore[arg-type]
    states, empty, pooled, empty_pooled = pipeline.encode_prompt("an axe")
    torch.testing.assert_close(ours.states, torch.cat([empty, states]), rtol=1e-5, atol=1e-5)
    assert ours.pooled is not None
    torch.testing.assert_close(ours.pooled, torch.cat([empty_pooled, pooled]), rtol=1e-5, atol=1e-5)
    assert ours.states[0].count_nonzero() == 0


def test_a_unet_that_asks_for_other_conditions_is_refused(tokenizer: CLIPTokenizer) -> None:
    mixed = tiny_pipeline(tokenizer)
    mixed.unet = tiny_xl_pipeline(tokenizer).unet
    with pytest.raises(EvaluationError, match="takes added conditions of width 72"):
        encode_prompts(mixed, [])


def test_conditions_of_both_families_keep_their_rows_together(
    tmp_path: Path, tokenizer: CLIPTokenizer
) -> None:
    prompts = encode_prompts(tiny_xl_pipeline(tokenizer), ["an axe", "a key"])  # type: ignore[arg-type]
    picked = prompts[torch.tensor([2, 0])]
    assert len(picked) == 2
    for part, whole in zip(picked.tensors(), prompts.tensors(), strict=True):
        assert torch.equal(part, whole[[2, 0]])
