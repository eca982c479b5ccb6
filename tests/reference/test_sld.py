"""Safe latent diffusion against the authors' own pipeline (in diffusers), and its formula for v-prediction."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from safegen.defences.concept import Concept
from safegen.defences.defence import ProtectedModel
from safegen.defences.sld import SafeLatentDiffusion, SafetyGuidance
from safegen.defences.sld_settings import SLD_STRENGTHS, SldLevel, SldSettings
from safegen.diffusion.guidance import ClassifierFreeGuidance
from safegen.diffusion.sampler import DrawRequest, SamplerSettings, draw
from safegen.errors import EditError
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer

CONCEPT = Concept(phrases=("axe", "bomb"))
STEPS, SCALE, SEED, PROMPT = 12, 20.0, 3, "a bell on blue"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@contextmanager
def _deprecation_expected() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def published_picture(
    pipeline: StableDiffusionPipeline, level: SldLevel, warmup: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Draw with the authors' pipeline, made of the same parts."""
    with _deprecation_expected():
        from diffusers.pipelines.deprecated.stable_diffusion_safe import SafetyConfig
        from diffusers.pipelines.deprecated.stable_diffusion_safe.pipeline_stable_diffusion_safe import (
            StableDiffusionPipelineSafe,
        )

        parts = (
            "vae",
            "text_encoder",
            "tokenizer",
            "unet",
            "scheduler",
            "safety_checker",
            "feature_extractor",
        )
        safe = StableDiffusionPipelineSafe(
            **{name: pipeline.components[name] for name in parts}, requires_safety_checker=False
        )
        safe.set_progress_bar_config(disable=True)
        safe.safety_concept = "an image showing axe, bomb"
        settings = {**getattr(SafetyConfig, level.upper()), "sld_warmup_steps": warmup}
        first = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(SEED))
        drawn = safe(
            PROMPT,
            num_inference_steps=STEPS,
            guidance_scale=SCALE,
            latents=first,
            output_type="np",
            **settings,
        )
    return drawn.images[0]


@pytest.mark.parametrize("level", SLD_STRENGTHS)
def test_every_level_draws_what_the_authors_pipeline_draws(tokenizer: CLIPTokenizer, level: SldLevel) -> None:
    pipeline = tiny_pipeline(tokenizer)
    warmup = min(2, SLD_STRENGTHS[level].warmup_steps)
    model = SafeLatentDiffusion(CONCEPT, SldSettings(level=level, warmup_steps=warmup)).protect(
        ProtectedModel("0" * 64, pipeline)
    )
    assert model.guidance is not None
    request = [DrawRequest(PROMPT, SEED)]
    settings = SamplerSettings(steps=STEPS)
    [(_, ours)] = draw(pipeline, request, settings, guidance=model.guidance.at_scale(SCALE))
    [(_, unguided)] = draw(pipeline, request, settings, guidance=ClassifierFreeGuidance(SCALE))
    assert ours is not None
    assert unguided is not None
    published = published_picture(pipeline, level, warmup) * 255
    assert np.abs(ours - published).max() <= 1
    assert np.abs(ours.astype(int) - unguided).max() > 2


def test_levels_are_those_of_the_authors_code() -> None:
    from diffusers.pipelines.deprecated.stable_diffusion_safe import SafetyConfig

    for level, strength in SLD_STRENGTHS.items():
        published = getattr(SafetyConfig, level.upper())
        assert list(published.values()) == [
            strength.warmup_steps,
            strength.guidance_scale,
            strength.threshold,
            strength.momentum_scale,
            strength.momentum_decay,
        ]


def test_v_prediction_is_steered_as_the_same_epsilons_are() -> None:
    generator = torch.Generator().manual_seed(0)
    rate, x = 0.3, torch.randn(2, 4, 3, 3, generator=generator)
    asked, empty, concept = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(3))

    def epsilon(v: torch.Tensor) -> torch.Tensor:
        return rate * v + (1 - rate**2) ** 0.5 * x

    of_v, of_epsilon = (SafetyGuidance(("axe",), SLD_STRENGTHS["strong"], 4.0) for _ in range(2))
    for step in range(9):  # past the warm-up, so that the momentum counts
        v = of_v.combine(asked, torch.stack([empty, concept]), step, rate)
        e = of_epsilon.combine(epsilon(asked), torch.stack([epsilon(empty), epsilon(concept)]), step)
    torch.testing.assert_close(epsilon(v), e)
    unguided = ClassifierFreeGuidance(4.0).combine(asked, empty[None], 0)
    assert not torch.allclose(v, unguided)


def test_the_first_step_of_a_batch_forgets_the_momentum_of_the_last() -> None:
    predictions = torch.randn(3, 1, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    used, fresh = (SafetyGuidance(("axe",), SLD_STRENGTHS["max"], 4.0) for _ in range(2))
    first = used.combine(predictions[0], predictions[1:], 0)
    used.combine(predictions[1], predictions[1:], 1)
    assert torch.equal(used.combine(predictions[0], predictions[1:], 0), first)
    assert torch.equal(fresh.combine(predictions[0], predictions[1:], 0), first)


def test_two_guidances_are_refused_and_the_weights_are_the_models_own(tokenizer: CLIPTokenizer) -> None:
    pipeline = tiny_pipeline(tokenizer)
    sld = SafeLatentDiffusion(CONCEPT, SldSettings())
    guided = sld.protect(ProtectedModel("0" * 64, pipeline))
    assert guided.pipeline is pipeline
    assert guided.sha256 == "0" * 64
    with pytest.raises(EditError, match="stack one sampler defence"):
        sld.protect(guided)


def test_each_picture_is_steered_away_from_the_concept_it_is_nearest_to() -> None:
    generator = torch.Generator().manual_seed(2)
    asked, empty = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(2))
    axe, bomb = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(2))
    axe[0], bomb[1] = asked[0] + 0.01, asked[1] + 0.01
    strength = SLD_STRENGTHS["max"]
    several = SafetyGuidance(("axe", "bomb"), strength, 4.0)
    assert several.prompts == ("", "axe", "bomb")
    got = several.combine(asked, torch.stack([empty, axe, bomb]), 0)
    for row, concept in enumerate((axe, bomb)):
        alone = SafetyGuidance(("one",), strength, 4.0)
        expected = alone.combine(asked[row : row + 1], torch.stack([empty, concept])[:, row : row + 1], 0)
        torch.testing.assert_close(got[row : row + 1], expected)


def test_prompts_of_the_safety_concept_are_worded_as_the_settings_say(tokenizer: CLIPTokenizer) -> None:
    model = ProtectedModel("0" * 64, tiny_pipeline(tokenizer))
    listed = SafeLatentDiffusion(CONCEPT, SldSettings()).protect(model).guidance
    assert listed is not None
    assert listed.prompts == ("", "an image showing axe, bomb")
    settings = SldSettings(prompts="each", wording="a picture of a {}", phrases=("bow", "axe"))
    each = SafeLatentDiffusion(CONCEPT, settings).protect(model).guidance
    assert each is not None
    assert each.prompts == ("", "a picture of a bow", "a picture of a axe")
    assert each.description != listed.description
