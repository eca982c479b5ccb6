"""UCE's closed form against numpy's least squares, and what every weight edit must do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from safegen.defences.concept import Concept
from safegen.defences.edit_loop import EditObservers
from safegen.defences.uce import TokenMap, UceEdit, UceSettings, mapped_weight, token_map
from safegen.diffusion.prompt_states import PromptStates
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer, tiny_xl_pipeline
from tests.weight_edit_case import CONCEPT, assert_protects_a_copy, changed, edited, weights_of


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def fresh(tokenizer: CLIPTokenizer) -> Callable[[], StableDiffusionPipeline]:
    return lambda: tiny_pipeline(tokenizer)


@pytest.mark.parametrize("retained", [0, 5])
def test_the_closed_form_is_the_least_squares_solution(retained: int) -> None:
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(7, 6, generator=generator, dtype=torch.float64)
    tokens = TokenMap(
        *(torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (4, 4, retained))
    )
    settings = UceSettings(erase_scale=1.5, retain_scale=0.4, ridge=0.2)
    # Rows of A W' = B, each scaled by the root of its weight.
    a = np.concatenate(
        [
            1.5**0.5 * tokens.erased.numpy(),
            0.4**0.5 * tokens.retained.numpy(),
            0.2**0.5 * np.eye(6),
        ]
    )
    b = np.concatenate(
        [
            1.5**0.5 * (tokens.anchored @ old.T).numpy(),
            0.4**0.5 * (tokens.retained @ old.T).numpy(),
            0.2**0.5 * old.T.numpy(),
        ]
    )
    expected = np.linalg.lstsq(a, b, rcond=None)[0].T
    np.testing.assert_allclose(mapped_weight(old, tokens, settings).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_the_concept_is_heard_as_its_anchor_and_the_rest_as_before(
    fresh: Callable[[], StableDiffusionPipeline],
) -> None:
    pipeline = fresh()
    layer = pipeline.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2.to_k")
    assert isinstance(layer, torch.nn.Linear)
    old = layer.weight.detach().clone()
    settings = UceSettings(ridge=1e-6, tokens="last")
    UceEdit(CONCEPT, settings).edit(pipeline)
    tokens = token_map(pipeline, CONCEPT, settings)
    heard, before = tokens.erased @ layer.weight.T, tokens.anchored @ old.T
    torch.testing.assert_close(heard, before, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        tokens.retained @ layer.weight.T, tokens.retained @ old.T, atol=1e-3, rtol=1e-3
    )


def test_states_are_those_of_the_phrase_wherever_it_stands(
    fresh: Callable[[], StableDiffusionPipeline],
) -> None:
    pipeline = fresh()
    concept = Concept(phrases=("water pistol",), templates=("a {} on blue",), anchor="bell")
    states = (
        PromptStates(pipeline, (16, 16)).conditioning(["a water pistol on blue", "a bell on blue"]).states
    )
    ids = pipeline.tokenizer("a water pistol").input_ids
    last, anchor = len(ids) - 2, len(pipeline.tokenizer("a bell").input_ids) - 2
    one = token_map(pipeline, concept, UceSettings())
    assert torch.equal(one.erased, states[0, last : last + 1])
    assert torch.equal(one.anchored, states[1, anchor : anchor + 1])
    assert one.retained.shape == (0, states.shape[-1])
    every = token_map(pipeline, concept, UceSettings(tokens="all"))
    count = states.shape[1] - last
    assert torch.equal(every.erased, states[0, last:])
    assert torch.equal(every.anchored, states[1, anchor : anchor + count])


def test_an_empty_anchor_is_the_token_of_the_beginning(fresh: Callable[[], StableDiffusionPipeline]) -> None:
    pipeline = fresh()
    tokens = token_map(pipeline, Concept(phrases=("axe",)), UceSettings())
    states = PromptStates(pipeline, (16, 16)).conditioning([""]).states
    assert torch.equal(tokens.anchored, states[0, :1])


def test_keys_and_values_of_cross_attention_change_alone(
    fresh: Callable[[], StableDiffusionPipeline],
) -> None:
    before = weights_of(fresh())
    touched = changed(before, edited(UceEdit(CONCEPT, UceSettings()), fresh()))
    assert touched == {
        name
        for name in before
        if name.startswith("unet/") and (".attn2.to_k." in name or ".attn2.to_v." in name)
    }
    assert_protects_a_copy(UceEdit(CONCEPT, UceSettings()), fresh())


def test_sdxl_is_edited_and_observers_are_told(tokenizer: CLIPTokenizer) -> None:
    told: dict[str, float] = {}
    pipeline = tiny_xl_pipeline(tokenizer)
    UceEdit(CONCEPT, UceSettings(tokens="all")).edit(
        pipeline, observers=EditObservers(on_step=lambda _, values: told.update(values))
    )
    assert told["moved"] > 0
