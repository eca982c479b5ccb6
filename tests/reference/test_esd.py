"""ESD's loss against a plain restatement of the paper's equation 7, and what every weight edit must do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPTokenizer

from safegen.defences.edit_loop import EditObservers
from safegen.defences.esd import EsdEdit, EsdSettings
from safegen.defences.triplet_latents import batch_generator
from safegen.diffusion.prompt_states import PromptStates
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
    "steps": 4,
    "sampling_steps": 3,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "checkpoint_every_steps": 2,
}


def esd(**changes: Any) -> EsdEdit:
    return EsdEdit(CONCEPT, EsdSettings(**{**QUICK, **changes}), seed=1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def fresh(tokenizer: CLIPTokenizer) -> Callable[..., StableDiffusionPipeline]:
    return lambda prediction="epsilon": tiny_pipeline(tokenizer, 0, prediction)


@torch.no_grad()
def restated_loss(pipeline: StableDiffusionPipeline, settings: EsdSettings, step: int) -> float:
    """Equation 7 at the base model, with randomness drawn in the same order."""
    generator = batch_generator(1, step, 0)
    texts = PromptStates(pipeline, (16, 16))
    prompts = sorted(CONCEPT.prompts)
    rows = torch.randint(1, len(prompts) + 1, (settings.batch_size,), generator=generator).tolist()
    c = texts.conditioning([prompts[row - 1] for row in rows]).states
    empty = texts.conditioning([""] * len(rows)).states
    done = int(torch.randint(settings.sampling_steps, (1,), generator=generator))
    x = torch.randn((len(rows), 4, 8, 8), generator=generator)
    scheduler = DDIMScheduler.from_config(copy.deepcopy(dict(pipeline.scheduler.config)))
    scheduler.set_timesteps(settings.sampling_steps)

    def predict(x: torch.Tensor, t: Any, states: torch.Tensor) -> torch.Tensor:
        return pipeline.unet(x, t, encoder_hidden_states=states).sample

    for t in scheduler.timesteps[:done]:
        towards, away = predict(x, t, c), predict(x, t, empty)
        x = scheduler.step(away + settings.start_guidance * (towards - away), t, x).prev_sample
    t = scheduler.timesteps[done]
    e_c, e_0 = predict(x, t, c), predict(x, t, empty)
    target = e_0 - settings.erase_scale * (e_c - e_0)
    return ((e_c - target) ** 2).mean().item()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("seeded", [0, 7])
def test_the_loss_is_that_of_the_paper(
    fresh: Callable[..., StableDiffusionPipeline], prediction: str, seeded: int
) -> None:
    pipeline = fresh(prediction)
    settings = EsdSettings(**{**QUICK, "steps": seeded + 1, "learning_rate": 1e-30, "erase_scale": 1.7})
    losses: list[float] = []
    observers = EditObservers(on_step=lambda _, values: losses.append(values["loss"]))
    EsdEdit(CONCEPT, settings, seed=1).edit(pipeline, observers=observers)
    assert losses[seeded] == pytest.approx(restated_loss(pipeline, settings, seeded), rel=1e-4)


@pytest.mark.parametrize("variant", ["x", "u"])
def test_each_variant_trains_its_layers_alone(
    fresh: Callable[..., StableDiffusionPipeline], variant: str
) -> None:
    before = weights_of(fresh())
    touched = changed(before, edited(esd(variant=variant), fresh()))
    cross = {name for name in before if name.startswith("unet/") and ".attn2." in name}
    if variant == "x":
        assert touched == cross
    else:
        # The bias of a key-like shift before a norm may have no gradient at all; all that moves lies outside.
        assert touched
        assert not touched & cross
        assert any("resnets" in name for name in touched)
        assert any(".attn1." in name for name in touched)


def test_a_killed_edit_ends_with_the_same_weights(
    fresh: Callable[..., StableDiffusionPipeline], tmp_path: Path
) -> None:
    assert_resumes(esd(), fresh, tmp_path, steps=4, kept=2)


def test_a_copy_is_protected(fresh: Callable[..., StableDiffusionPipeline]) -> None:
    assert_protects_a_copy(esd(), fresh())


def test_half_precision_trains_too(fresh: Callable[..., StableDiffusionPipeline]) -> None:
    assert changed(weights_of(fresh()), edited(esd(mixed_precision="bf16"), fresh()))


def test_training_lowers_the_loss(fresh: Callable[..., StableDiffusionPipeline]) -> None:
    losses: list[float] = []
    observers = EditObservers(on_step=lambda _, values: losses.append(values["loss"]))
    settings = EsdSettings(**{**QUICK, "steps": 30, "learning_rate": 3e-3, "sampling_steps": 2})
    EsdEdit(CONCEPT, settings, seed=1).edit(fresh(), observers=observers)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_sdxl_is_edited_too(tokenizer: CLIPTokenizer) -> None:
    pipeline = tiny_xl_pipeline(tokenizer)
    before = {name: weight.clone() for name, weight in pipeline.unet.state_dict().items()}
    esd(steps=1).edit(pipeline)
    after = pipeline.unet.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        name for name in before if ".attn2." in name
    }


def test_losses_that_are_not_finite_end_the_edit(fresh: Callable[..., StableDiffusionPipeline]) -> None:
    with pytest.raises(EditError, match="expected finite values; lower learning_rate"):
        esd(learning_rate=1e30).edit(fresh())
