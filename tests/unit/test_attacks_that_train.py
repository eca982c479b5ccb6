"""Concept inversion and relearning on a Stable Diffusion of random weights."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from safegen.attacks.attack_settings import InversionSettings, RelearningSettings
from safegen.attacks.fine_tuning import CaptionedLatents
from safegen.attacks.inversion import invert_concepts, learnt_tokens, with_learnt_tokens
from safegen.attacks.relearning import relearn
from safegen.defences.triplet_latents import encode_prompts
from safegen.diffusion.losses import weighted_mse
from safegen.diffusion.noise_schedule import noise_schedule
from safegen.diffusion.sampler import DrawRequest, SamplerSettings, draw
from safegen.errors import EditError
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer, tiny_xl_pipeline

INVERSION = InversionSettings(steps=25, batch_size=8, learning_rate=0.3, templates=("a {token}",))
RELEARNING = RelearningSettings(measure_at=(1, 12, 30), batch_size=4, learning_rate=2e-3)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def pipeline(tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    return tiny_pipeline(tokenizer)


def _latents(seed: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def _weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in module.state_dict().items()}


def _same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def _loss(pipeline: StableDiffusionPipeline, prompt: str, clean: torch.Tensor) -> float:
    """Diffusion loss of pictures under a prompt, over fixed noise."""
    schedule = noise_schedule(dict(pipeline.scheduler.config))
    generator = torch.Generator().manual_seed(9)
    clean = clean.repeat(20, 1, 1, 1)
    t = torch.randint(1000, (len(clean),), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    text = encode_prompts(pipeline, [prompt])[torch.ones(len(clean), dtype=torch.long)].unet_inputs()
    with torch.no_grad():
        predicted = pipeline.unet(schedule.noised(clean, noise, t), t, **text).sample
    return float(weighted_mse(predicted, schedule.truth(clean, noise, t)))


def _kept_parts(pipeline: StableDiffusionPipeline) -> dict[str, dict[str, torch.Tensor]]:
    return {name: _weights(getattr(pipeline, name)) for name in ("unet", "vae", "text_encoder")}


def test_inversion_lowers_the_loss_of_each_token_and_changes_nothing_else(
    pipeline: StableDiffusionPipeline,
) -> None:
    before, words = _kept_parts(pipeline), len(pipeline.tokenizer)
    pictures = {"AXE": _latents(1), "BOMB": _latents(2)}
    start = pipeline.text_encoder.get_input_embeddings().weight.detach().mean(dim=0)
    untrained = with_learnt_tokens(pipeline, dict.fromkeys(pictures, start))

    inverted = invert_concepts(pipeline, pictures, INVERSION, seed=4)
    attacked = with_learnt_tokens(pipeline, inverted.vectors)
    for concept, latents in pictures.items():
        prompt = f"a {learnt_tokens(pictures)[concept]}"
        assert _loss(attacked, prompt, latents) < _loss(untrained, prompt, latents)
    assert len(inverted.losses) == 25
    after = _kept_parts(pipeline)
    assert all(_same(kept, after[name]) for name, kept in before.items())
    assert len(pipeline.tokenizer) == words
    assert all(weight.requires_grad for weight in pipeline.unet.parameters())
    rows = attacked.text_encoder.get_input_embeddings().weight
    assert torch.equal(rows[:words], pipeline.text_encoder.get_input_embeddings().weight)
    assert torch.equal(rows[words:], torch.stack([inverted.vectors["AXE"], inverted.vectors["BOMB"]]))


def test_a_learnt_token_is_one_token_and_can_be_drawn_with(pipeline: StableDiffusionPipeline) -> None:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    attacked, token = with_learnt_tokens(pipeline, {"AXE": vector}), learnt_tokens(["AXE"])["AXE"]
    assert len(attacked.tokenizer(token).input_ids) == len(pipeline.tokenizer("").input_ids) + 1
    requests = [DrawRequest(f"a {token}", 3), DrawRequest("a ", 3)]
    (_, with_token), (_, without) = draw(attacked, requests, SamplerSettings(steps=2))
    assert with_token is not None
    assert (with_token != without).any()


def test_inversion_is_the_same_for_the_same_seed(pipeline: StableDiffusionPipeline) -> None:
    quick = INVERSION.model_copy(update={"steps": 3})
    losses = [invert_concepts(pipeline, {"AXE": _latents(1)}, quick, seed=seed).losses for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_inversion_refuses_what_it_cannot_attack(
    pipeline: StableDiffusionPipeline, tokenizer: CLIPTokenizer
) -> None:
    with pytest.raises(EditError, match="no picture of AXE"):
        invert_concepts(pipeline, {"AXE": _latents(1, 0)}, INVERSION, seed=0)
    with pytest.raises(EditError, match="no picture of any concept"):
        invert_concepts(pipeline, {}, INVERSION, seed=0)
    with pytest.raises(EditError, match="two text towers"):
        invert_concepts(tiny_xl_pipeline(tokenizer), {"AXE": _latents(1)}, INVERSION, seed=0)


def test_relearning_brings_pictures_back_and_leaves_the_attacked_model(
    pipeline: StableDiffusionPipeline,
) -> None:
    before, latents = _weights(pipeline.unet), _latents(1)
    curve: list[tuple[int, float]] = [(0, _loss(pipeline, "an axe", latents))]
    told: list[int] = []
    relearn(
        pipeline,
        CaptionedLatents(latents, ("an axe",) * len(latents)),
        RELEARNING,
        seed=5,
        measure=lambda step, attacked: curve.append((step, _loss(attacked, "an axe", latents))),
        on_step=lambda step, _: told.append(step),
    )
    assert [step for step, _ in curve] == [0, 1, 12, 30]
    assert curve[3][1] < curve[2][1] < curve[0][1]
    assert told == list(range(1, 31))
    assert _same(before, _weights(pipeline.unet))


def test_relearning_uses_the_first_pictures_alone(pipeline: StableDiffusionPipeline) -> None:
    pictures = CaptionedLatents(_latents(1), ("an axe", "a bomb", ""))
    assert len(pictures.first(2)) == 2
    assert torch.equal(pictures.first(1).latents, pictures.latents[:1])
    assert pictures.first(1).captions == ("an axe",)
    with pytest.raises(EditError, match="no picture to fine-tune on"):
        relearn(pipeline, pictures.first(0), RELEARNING, seed=0, measure=lambda _step, _pipeline: None)


def test_budgets_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="do not ascend"):
        RelearningSettings(measure_at=(20, 10))
    with pytest.raises(ValueError, match=r"does not hold \{token\} once"):
        InversionSettings(templates=("a picture",))
