from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

from safegen.diffusion.guidance import ClassifierFreeGuidance
from safegen.diffusion.sampler import DrawRequest, SamplerSettings, draw
from safegen.errors import EvaluationError
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer, tiny_xl_pipeline

REQUESTS = [
    DrawRequest(prompt, seed) for seed, prompt in enumerate(["a bomb on blue", "an axe", "a key", "a key"])
]
SETTINGS = SamplerSettings(steps=4, guidance=7.5, batch_size=3)


@pytest.fixture(scope="module", params=["epsilon", "v_prediction", "xl", "xl, empty prompt encoded"])
def pipeline(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    if request.param.startswith("xl"):
        return tiny_xl_pipeline(tokenizer, zeros_for_empty=request.param == "xl")
    return tiny_pipeline(tokenizer, prediction_type=request.param)


def pictures(
    pipeline: StableDiffusionPipeline,
    settings: SamplerSettings,
    requests: Sequence[DrawRequest] = REQUESTS,
    **more: object,
) -> list[np.ndarray]:
    drawn = list(draw(pipeline, requests, settings, **more))  # type: ignore[arg-type]
    assert [index for index, _ in drawn] == list(range(len(requests)))
    return [picture for _, picture in drawn if picture is not None]


def worst(left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> int:
    assert len(left) == len(right)
    return max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_a_batch_draws_what_the_pipeline_draws_one_at_a_time(
    pipeline: StableDiffusionPipeline, guidance: float
) -> None:
    ours = pictures(pipeline, replace(SETTINGS, guidance=guidance))
    theirs = [
        pipeline(
            request.prompt,
            generator=torch.Generator().manual_seed(request.seed),
            num_inference_steps=SETTINGS.steps,
            guidance_scale=guidance,
            output_type="np",
        ).images[0]
        for request in REQUESTS
    ]
    assert ours[0].shape == (16, 16, 3)
    assert worst(ours, [(picture * 255).round() for picture in theirs]) <= 2
    assert worst(ours[:1], ours[1:2]) > 10


def test_a_picture_depends_neither_on_its_batch_nor_on_its_place(pipeline: StableDiffusionPipeline) -> None:
    together = pictures(pipeline, replace(SETTINGS, batch_size=4))
    assert worst(together, pictures(pipeline, replace(SETTINGS, batch_size=1))) <= 1
    assert worst(together[::-1], pictures(pipeline, SETTINGS, REQUESTS[::-1])) <= 1


def test_bfloat16_draws_nearly_the_same(pipeline: StableDiffusionPipeline) -> None:
    exact, rough = pictures(pipeline, SETTINGS), pictures(pipeline, replace(SETTINGS, precision="bfloat16"))
    mean = np.mean([np.abs(a.astype(float) - b).mean() for a, b in zip(exact, rough, strict=True)])
    assert 0 < mean < 4


def test_weights_in_half_precision_draw_nearly_the_same_from_the_same_noise(
    pipeline: StableDiffusionPipeline,
) -> None:
    exact, half = pictures(pipeline, SETTINGS), copy.deepcopy(pipeline)
    for name in ("unet", "text_encoder", "text_encoder_2"):
        if getattr(half, name, None) is not None:
            getattr(half, name).to(torch.bfloat16)
    rough = pictures(half, replace(SETTINGS, precision="bfloat16"))
    mean = np.mean([np.abs(a.astype(float) - b).mean() for a, b in zip(exact, rough, strict=True)])
    assert 0 < mean < 4
    assert half.vae.dtype == torch.float32


def test_float16_is_refused_on_a_cpu(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(EvaluationError, match='float16 on a CPU; use precision = "float32"'):
        pictures(pipeline, replace(SETTINGS, precision="float16"))


def test_the_scheduler_of_the_checkpoint_does_not_matter_its_noise_levels_do(
    pipeline: StableDiffusionPipeline,
) -> None:
    expected = pictures(pipeline, SETTINGS)
    own = pipeline.scheduler
    config = {key: value for key, value in own.config.items() if key != "clip_sample"}
    pipeline.scheduler = PNDMScheduler.from_config(config, skip_prk_steps=True)
    try:
        assert worst(expected, pictures(pipeline, SETTINGS)) == 0
    finally:
        pipeline.scheduler = own


@dataclass
class _Away:
    """Steers away from a fixed prompt, as safe latent diffusion does."""

    steps: list[int]
    prompts: tuple[str, ...] = ("", "a bomb")
    description: str = "away"

    def combine(
        self, asked: torch.Tensor, others: torch.Tensor, step: int, epsilon_rate: float = 1.0
    ) -> torch.Tensor:
        self.steps.append(step)
        assert others.shape == (2, *asked.shape)
        return ClassifierFreeGuidance(7.5).combine(asked, others[:1], step) + 0 * others[1]


def test_another_guidance_sees_one_prediction_per_prompt(pipeline: StableDiffusionPipeline) -> None:
    guidance = _Away([])
    assert worst(pictures(pipeline, SETTINGS), pictures(pipeline, SETTINGS, guidance=guidance)) <= 1
    assert guidance.steps == [*range(4), *range(4)]


def test_numbers_that_are_not_finite_give_no_picture_and_spoil_no_other(
    pipeline: StableDiffusionPipeline,
) -> None:
    class Spoils(_Away):
        def combine(
            self, asked: torch.Tensor, others: torch.Tensor, step: int, epsilon_rate: float = 1.0
        ) -> torch.Tensor:
            combined = super().combine(asked, others, step, epsilon_rate)
            combined[1] = torch.nan
            return combined

    drawn = [picture for _, picture in draw(pipeline, REQUESTS[:3], SETTINGS, guidance=Spoils([]))]
    assert [picture is None for picture in drawn] == [False, True, False]


def test_progress_counts_pictures_and_no_prompt_is_logged(
    pipeline: StableDiffusionPipeline, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    counts: list[tuple[int, int]] = []
    long = [DrawRequest("secretword " * 40, 0)]
    with caplog.at_level(logging.DEBUG):
        pictures(
            pipeline, SETTINGS, [*REQUESTS, *long], on_batch=lambda done, total: counts.append((done, total))
        )
    assert counts == [(3, 5), (5, 5)]
    out = capfd.readouterr()
    assert "secretword" not in caplog.text + out.out + out.err


def test_sizes_that_the_vae_cannot_make_are_refused(pipeline: StableDiffusionPipeline) -> None:
    wide = pictures(pipeline, replace(SETTINGS, height_px=16, width_px=32), REQUESTS[:1])
    assert wide[0].shape == (16, 32, 3)
    with pytest.raises(EvaluationError, match="multiples of 2"):
        pictures(pipeline, replace(SETTINGS, width_px=17))
