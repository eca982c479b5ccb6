"""AdvUnlearn's step against a plain restatement, and what every weight edit must do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPTokenizer

from safegen.defences.adv_unlearn import AdvUnlearnEdit, AdvUnlearnSettings
from safegen.defences.concept import Concept
from safegen.defences.edit_loop import EditObservers
from safegen.defences.triplet_latents import batch_generator
from safegen.diffusion.prompt_states import PromptStates
from safegen.diffusion.soft_prompt import prompt_states, prompt_tokens
from safegen.errors import EditError
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer, tiny_xl_pipeline
from tests.weight_edit_case import (
    CONCEPT,
    assert_protects_a_copy,
    assert_resumes,
    changed,
    edited,
    weights_of,
)

QUICK = {
    "steps": 5,
    "warmup_steps": 1,
    "sampling_steps": 2,
    "batch_size": 2,
    "retain_batch_size": 3,
    "attack_steps": 2,
    "attack_learning_rate": 0.1,
    "learning_rate": 1e-3,
    "checkpoint_every_steps": 3,
}


def adv_unlearn(**changes: Any) -> AdvUnlearnEdit:
    return AdvUnlearnEdit(CONCEPT, AdvUnlearnSettings(**{**QUICK, **changes}), seed=1)


def told_values(edit: AdvUnlearnEdit, pipeline: StableDiffusionPipeline) -> list[Mapping[str, float]]:
    told: list[Mapping[str, float]] = []
    edit.edit(pipeline, observers=EditObservers(on_step=lambda _, values: told.append(dict(values))))
    return told


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def fresh(tokenizer: CLIPTokenizer) -> Callable[..., StableDiffusionPipeline]:
    return lambda prediction="epsilon": tiny_pipeline(tokenizer, 0, prediction)


def restated_step(
    pipeline: StableDiffusionPipeline, settings: AdvUnlearnSettings
) -> tuple[float, float, float]:
    """Inner loss (last), outer loss, retaining loss of step 0, with randomness drawn in the same order."""
    words = pipeline.text_encoder.get_input_embeddings().weight.detach()
    row = torch.randint(len(words), (1,), generator=batch_generator(1, 0, 1))
    prefix = words[row].clone().requires_grad_(True)
    generator = batch_generator(1, 0, 0)
    done = int(torch.randint(settings.sampling_steps, (1,), generator=generator))
    texts = PromptStates(pipeline, (16, 16))

    def predict(x: torch.Tensor, t: Any, states: torch.Tensor) -> torch.Tensor:
        return pipeline.unet(x, t, encoder_hidden_states=states).sample

    @torch.no_grad()
    def drawn(prompts: list[str]) -> tuple[torch.Tensor, Any, torch.Tensor, torch.Tensor]:
        c, empty = (texts.conditioning(one).states for one in (prompts, [""] * len(prompts)))
        x = torch.randn((len(prompts), 4, 8, 8), generator=generator)
        scheduler = DDIMScheduler.from_config(dict(pipeline.scheduler.config))
        scheduler.set_timesteps(settings.sampling_steps)
        for t in scheduler.timesteps[:done]:
            away = predict(x, t, empty)
            x = scheduler.step(away + 3.0 * (predict(x, t, c) - away), t, x).prev_sample
        t = scheduler.timesteps[done]
        return x, t, predict(x, t, c), predict(x, t, empty)

    rows = torch.randint(len(CONCEPT.prompts), (settings.batch_size,), generator=generator).tolist()
    prompts = [CONCEPT.prompts[row] for row in rows]
    x, t, e_c, e_0 = drawn(prompts)
    ids = prompt_tokens(pipeline.tokenizer, prompts, prefix=1)
    attack = torch.optim.Adam([prefix], lr=settings.attack_learning_rate)
    inner = torch.zeros(())
    for _ in range(settings.attack_steps):
        attack.zero_grad()
        inner = (predict(x, t, prompt_states(pipeline.text_encoder, ids, prefix)) - e_c).square().mean()
        inner.backward()
        attack.step()
    outer = predict(x, t, prompt_states(pipeline.text_encoder, ids, prefix)) - (2 * e_0 - e_c)
    kept_rows = torch.randint(1 + len(CONCEPT.retain_prompts), (3,), generator=generator).tolist()
    x, t, e_r, _ = drawn([("", *CONCEPT.retain_prompts)[row] for row in kept_rows])
    # E is E* before the first optimiser step, so what must stay has not moved.
    return inner.item(), outer.square().mean().item(), (e_r - e_r).square().mean().item()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_step_is_that_of_the_paper(
    fresh: Callable[..., StableDiffusionPipeline], prediction: str
) -> None:
    settings = AdvUnlearnSettings(**{**QUICK, "steps": 1, "warmup_steps": 0, "attack_steps": 4})
    inner, outer, retain = restated_step(fresh(prediction), settings)
    [told] = told_values(AdvUnlearnEdit(CONCEPT, settings, seed=1), fresh(prediction))
    assert told["loss_attack"] == pytest.approx(inner, rel=1e-4)
    assert told["loss_erase"] == pytest.approx(outer, rel=1e-4)
    assert told["loss_retain"] == pytest.approx(retain, abs=1e-9)
    assert told["loss"] == pytest.approx(outer + retain, rel=1e-4)


def test_the_attack_brings_the_concept_nearer(fresh: Callable[..., StableDiffusionPipeline]) -> None:
    losses = [
        told_values(
            adv_unlearn(steps=1, warmup_steps=0, attack_steps=steps, attack_learning_rate=0.02), fresh()
        )[0]["loss_attack"]
        for steps in (1, 40)
    ]
    assert losses[1] < 0.8 * losses[0]


def test_the_first_steps_train_without_an_attack(fresh: Callable[..., StableDiffusionPipeline]) -> None:
    told = told_values(adv_unlearn(steps=3, warmup_steps=2), fresh())
    assert ["loss_attack" in values for values in told] == [False, False, True]


def test_the_layers_of_the_text_tower_change_alone(fresh: Callable[..., StableDiffusionPipeline]) -> None:
    before = weights_of(fresh())
    touched = changed(before, edited(adv_unlearn(), fresh()))
    assert touched
    assert all(name.startswith("text_encoder/") and "encoder.layers." in name for name in touched)


def test_a_killed_edit_ends_with_the_same_weights_and_the_same_prefix(
    fresh: Callable[..., StableDiffusionPipeline], tmp_path: Path
) -> None:
    assert_resumes(adv_unlearn(), fresh, tmp_path, steps=5, kept=3)


def test_a_copy_is_protected(fresh: Callable[..., StableDiffusionPipeline]) -> None:
    assert_protects_a_copy(adv_unlearn(mixed_precision="bf16"), fresh())


def test_training_lowers_the_erasing_loss(fresh: Callable[..., StableDiffusionPipeline]) -> None:
    told = told_values(adv_unlearn(steps=30, warmup_steps=20, learning_rate=3e-3), fresh())
    losses = [values["loss_erase"] for values in told]
    assert sum(losses[15:20]) < 0.8 * sum(losses[:5])


def test_two_towers_or_nothing_to_retain_are_refused(
    tokenizer: CLIPTokenizer, fresh: Callable[..., StableDiffusionPipeline]
) -> None:
    with pytest.raises(EditError, match=r"two text towers; expected SD 1\.x or 2\.x"):
        adv_unlearn().edit(tiny_xl_pipeline(tokenizer))
    with pytest.raises(EditError, match=r"concept\.retain is empty"):
        AdvUnlearnEdit(Concept(phrases=("axe",)), AdvUnlearnSettings(), seed=0).edit(fresh())


def test_a_prefix_stands_before_the_words_and_nothing_else_moves(
    fresh: Callable[..., StableDiffusionPipeline],
) -> None:
    pipeline = fresh()
    ids = prompt_tokens(pipeline.tokenizer, ["a bell", "bell " * 40], prefix=1)
    assert ids.shape == (2, pipeline.tokenizer.model_max_length)
    assert bool((ids == pipeline.tokenizer.eos_token_id).any(dim=1).all())
    word = pipeline.tokenizer("star").input_ids[1]
    embedding = pipeline.text_encoder.get_input_embeddings().weight[word][None]
    with torch.no_grad():
        soft = prompt_states(pipeline.text_encoder, ids[:1], embedding)
        hard = prompt_states(pipeline.text_encoder, prompt_tokens(pipeline.tokenizer, ["star a bell"]), None)
        again = prompt_states(pipeline.text_encoder, prompt_tokens(pipeline.tokenizer, ["a bell"]), None)
    torch.testing.assert_close(soft, hard)
    assert torch.equal(again, PromptStates(pipeline, (16, 16)).conditioning(["a bell"]).states)
