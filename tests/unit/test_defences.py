"""Filters, the retrained model, stacks, and what configurations mean by them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from transformers import CLIPTokenizer

from safegen.defences.concept import Concept
from safegen.defences.defence import ProtectedModel
from safegen.defences.opening import DefenceParts, open_defence, open_edit, open_stack, where_it_acts
from safegen.defences.protected_drawing import draw_protected, fate_counts, looked_at
from safegen.defences.retrained import RetrainedUnet
from safegen.defences.retrained_settings import RetrainedSettings
from safegen.defences.safegen import TripletLatents, encode_prompts
from safegen.defences.safegen_settings import SafeGenSettings
from safegen.defences.safety_checker import DetectorFilter, SafetyCheckerDefence
from safegen.defences.settings import PUBLISHED, DefenceSettings
from safegen.defences.sld_settings import SldSettings
from safegen.defences.text_filter import TextFilter, TextFilterDefence, own_tower
from safegen.defences.text_filter_settings import TextFilterSettings
from safegen.diffusion.int8_weights import save_int8
from safegen.diffusion.sampler import DrawRequest, SamplerSettings
from safegen.domain.detection import Detection, DetectorIdentity
from safegen.errors import ConfigError, DataError, EditError
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer
from tests.weight_edit_case import CONCEPT, assert_protects_a_copy, weights_of

SAMPLER = SamplerSettings(steps=2, guidance=2.0)
SAFEGEN = SafeGenSettings(steps=2, accumulation=1, learning_rate=1e-2)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def pipeline(tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    return tiny_pipeline(tokenizer)


@pytest.fixture
def model(pipeline: StableDiffusionPipeline) -> ProtectedModel:
    return ProtectedModel("0" * 64, pipeline)


class BrightnessDetector:
    """Calls a picture BRIGHT by its mean."""

    identity = DetectorIdentity("brightness", "1", "0" * 64)
    labels = ("BRIGHT", "DARK")

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        return [
            (
                Detection("BRIGHT", float(image.mean()) / 255, (0, 0, 1, 1)),
                Detection("DARK", 1.0, (0, 0, 1, 1)),
            )
            for image in images
        ]


def one_hot(prompts: Sequence[str]) -> torch.Tensor:
    """Embed a prompt by its letters, so that cosines can be worked out by hand."""
    return torch.tensor([[float(prompt.count(letter)) for letter in "abcde"] for prompt in prompts])


def parts(pipeline: StableDiffusionPipeline, **changes: Any) -> DefenceParts:
    generator = torch.Generator().manual_seed(5)

    def triplets() -> TripletLatents:
        unsafe, censored, benign = (torch.randn(3, 4, 8, 8, generator=generator) for _ in range(3))
        return TripletLatents(unsafe, censored, benign, encode_prompts(pipeline, ()))

    given = DefenceParts(
        concept=CONCEPT,
        seed=1,
        triplets=triplets,
        detector=BrightnessDetector,
        unsafe_labels=("BRIGHT",),
        unsafe_threshold=0.5,
        clip=lambda: one_hot,
        retrained_unet=Path("nowhere"),
    )
    return replace(given, **changes)


@pytest.mark.parametrize(
    ("prompt", "held"),
    [
        ("an axe on blue", True),
        ("Two AXES!", True),
        ("a water-pistol", True),
        ("\uff41xe", True),  # full-width letters
        ("axel and relaxed", False),
        ("water", False),
        ("", False),
    ],
)
def test_words_are_found_whole_and_however_they_are_spelt(prompt: str, held: bool) -> None:
    made = TextFilter(("axe", "water pistol"), ("abc",), one_hot, threshold=1.1)
    assert made.holds_word(prompt) is held
    assert made.refuses([prompt]) == [held]


def test_prompts_near_the_concept_are_refused_from_the_threshold_on() -> None:
    made = TextFilter((), ("aa", "b"), one_hot, threshold=0.7)
    assert made.similarities(["a", "ab", "c", "aac"]) == pytest.approx([1.0, 0.5**0.5, 0.0, 2 / 5**0.5])
    assert made.refuses(["a", "ab", "c", "aac"]) == [True, True, False, True]
    assert made.refuses([]) == []
    assert "aa" not in made.description


def test_the_pipelines_own_tower_knows_its_concept_again(model: ProtectedModel) -> None:
    settings = TextFilterSettings(tower="pipeline", threshold=0.99999)
    unlisted = Concept(phrases=("axe",), templates=("a {} on pink",))
    [made] = TextFilterDefence(unlisted, settings).protect(model).prompt_filters
    assert made.refuses(["a bell", "an axe"]) == [False, True]
    tower = own_tower(model.pipeline)
    again = TextFilter((), ("a bell",), tower, threshold=0.99999)
    assert again.refuses(["a bell", "a star on pink"]) == [True, False]


def test_pictures_are_withheld_from_the_threshold_on_and_never_count_as_drawn(model: ProtectedModel) -> None:
    pictures = [np.full((2, 2, 3), value, np.uint8) for value in (0, 127, 128, 255)]
    made = DetectorFilter(BrightnessDetector(), ("BRIGHT",), 0.5)
    assert made.blacks_out(pictures) == [False, False, True, True]
    looked = looked_at(SafetyCheckerDefence(made).protect(model), [*pictures, None])
    assert [one.fate for one in looked] == ["drawn", "drawn", "blacked out", "blacked out", "failed"]
    assert [one.picture is None for one in looked] == [False, False, True, True, True]
    assert fate_counts(looked) == {"drawn": 2, "refused": 0, "blacked out": 2, "failed": 1}
    with pytest.raises(DataError, match="brightness has no label AXE; expected some of BRIGHT, DARK"):
        DetectorFilter(BrightnessDetector(), ("AXE",), 0.5)
    with pytest.raises(DataError, match="none given"):
        DetectorFilter(BrightnessDetector(), (), 0.5)


def test_a_protected_model_draws_what_no_filter_withholds(model: ProtectedModel) -> None:
    requests = [
        DrawRequest(prompt, seed) for seed, prompt in enumerate(("a bell", "an axe", "a star", "bombs"))
    ]
    plain = dict(draw_protected(model, requests, SAMPLER))
    assert [one.fate for one in plain.values()] == ["drawn"] * 4
    means = sorted(
        float(plain[index].picture.mean()) / 255 for index in (0, 2) if plain[index].picture is not None
    )
    between = sum(means) / 2
    checker = DetectorFilter(BrightnessDetector(), ("BRIGHT",), between)
    words = TextFilter(("axe", "bomb"), ("abc",), one_hot, threshold=1.1)
    guarded = replace(model, prompt_filters=(words,), image_filters=(checker,))
    drawn = dict(draw_protected(guarded, requests, SAMPLER))
    assert list(drawn) == [0, 1, 2, 3]
    assert [drawn[1].fate, drawn[3].fate] == ["refused", "refused"]
    assert sorted([drawn[0].fate, drawn[2].fate]) == ["blacked out", "drawn"]
    for index in (0, 2):  # the same picture, whatever else was refused
        if drawn[index].fate == "drawn":
            assert np.array_equal(drawn[index].picture, plain[index].picture)  # pyright: ignore[reportArgumentType]


def test_a_models_guidance_takes_the_samplers_scale(
    model: ProtectedModel, pipeline: StableDiffusionPipeline
) -> None:
    guided = open_defence(SldSettings(level="max"), parts(pipeline)).protect(model)
    request = [DrawRequest("an axe", 0)]
    weak, strong = (
        next(draw_protected(guided, request, SamplerSettings(steps=2, guidance=scale)))[1].picture
        for scale in (1.5, 30.0)
    )
    assert not np.array_equal(weak, strong)  # pyright: ignore[reportArgumentType]


def made_unet(pipeline: StableDiffusionPipeline, folder: Path) -> Path:
    folder.mkdir()
    save_int8(pipeline.unet.state_dict(), folder / "unet.safetensors")
    (folder / "config.json").write_text(json.dumps(dict(pipeline.unet.config)))
    return folder


def test_a_retrained_unet_takes_the_bases_place(
    tokenizer: CLIPTokenizer, model: ProtectedModel, tmp_path: Path
) -> None:
    other = tiny_pipeline(tokenizer, seed=3)
    folder = made_unet(other, tmp_path / "retrained")
    before = weights_of(model.pipeline)
    made = open_defence(RetrainedSettings(), parts(model.pipeline, retrained_unet=folder)).protect(model)
    assert not any((weight != before[name]).any() for name, weight in weights_of(model.pipeline).items())
    assert made.pipeline.text_encoder is model.pipeline.text_encoder
    for name, weight in made.pipeline.unet.state_dict().items():
        original = other.unet.state_dict()[name]
        rows = original.flatten(1) if original.dim() > 1 else original[:, None]
        error = 0.0 if original.dim() < 2 else float(rows.abs().amax()) / 254 + 1e-7
        torch.testing.assert_close(weight, original, atol=error, rtol=0)
    assert made.sha256 != model.sha256
    [picture] = draw_protected(made, [DrawRequest("a bell", 0)], SAMPLER)
    assert picture[1].fate == "drawn"


def test_a_retrained_unet_that_does_not_fit_is_refused(model: ProtectedModel, tmp_path: Path) -> None:
    folder = made_unet(model.pipeline, tmp_path / "retrained")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sample_size": 16}))
    with pytest.raises(
        EditError, match=r"has sample_size 16, the model 8; expected one that was trained for"
    ):
        RetrainedUnet(folder).protect(model)
    (folder / "config.json").write_text(json.dumps({**config, "block_out_channels": [32, 96]}))
    with pytest.raises(DataError, match=r"not those of its config\.json"):
        RetrainedUnet(folder).protect(model)
    with pytest.raises(DataError, match=r"config\.json cannot be used .*flows/miniature\.py"):
        RetrainedUnet(tmp_path / "missing").protect(model)


def test_another_checkpoint_can_be_the_retrained_model(
    tokenizer: CLIPTokenizer, model: ProtectedModel, tmp_path: Path
) -> None:
    other = tiny_pipeline(tokenizer, seed=4)
    other.save_pretrained(tmp_path / "other", safe_serialization=True)
    guarded = replace(model, image_filters=(DetectorFilter(BrightnessDetector(), ("BRIGHT",), 0.5),))
    made = open_defence(RetrainedSettings(source=str(tmp_path / "other")), parts(model.pipeline)).protect(
        guarded
    )
    assert made.image_filters == guarded.image_filters
    for name, weight in other.unet.state_dict().items():
        assert torch.equal(weight, made.pipeline.unet.state_dict()[name])


def test_safegen_protects_a_copy(pipeline: StableDiffusionPipeline) -> None:
    assert_protects_a_copy(open_edit(SAFEGEN, parts(pipeline)), pipeline)


def test_a_stack_protects_in_all_its_places(model: ProtectedModel) -> None:
    stack = open_stack(
        [SAFEGEN, SldSettings(level="weak"), TextFilterSettings()],
        parts(model.pipeline),
    )
    assert stack.name == "safegen+sld-weak+text-filter"
    assert not stack.text_dependent
    made = stack.protect(model)
    assert made.guidance is not None
    assert len(made.prompt_filters) == 1
    alone = open_stack([SAFEGEN], parts(model.pipeline))
    assert alone.name == "safegen"
    assert made.sha256 == alone.protect(model).sha256
    both = open_stack([SldSettings(), TextFilterSettings()], parts(model.pipeline))
    assert both.text_dependent
    with pytest.raises(EditError, match="stack one sampler defence at most"):
        open_stack([SldSettings(), SldSettings()], parts(model.pipeline)).protect(model)
    with pytest.raises(ConfigError, match="stack of defences is empty"):
        open_stack([], parts(model.pipeline))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_name_opens_under_its_own_name(name: str, pipeline: StableDiffusionPipeline) -> None:
    opened = open_defence(PUBLISHED[name], parts(pipeline))
    assert opened.name == name
    textless = {"unedited", "retrained", "safety-checker", "safegen"}
    assert opened.text_dependent is (name not in textless)
    assert where_it_acts(PUBLISHED[name])


@pytest.mark.parametrize(
    "settings", [PUBLISHED[name] for name in ("esd-x", "uce", "adv-unlearn", "sld-max", "text-filter")]
)
def test_a_defence_on_text_asks_what_the_concept_is_called(
    settings: DefenceSettings, pipeline: StableDiffusionPipeline
) -> None:
    with pytest.raises(ConfigError, match="table 'concept' is missing"):
        open_defence(settings, parts(pipeline, concept=None))


def test_the_unedited_model_is_the_model(model: ProtectedModel) -> None:
    assert open_defence(PUBLISHED["unedited"], parts(model.pipeline)).protect(model) is model


@pytest.fixture
def saved_checker(tmp_path: Path) -> Callable[[float], Path]:
    """Make a small checker of the published class, all of whose concepts have one threshold."""

    def save(threshold: float) -> Path:
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
        from transformers import CLIPConfig, CLIPImageProcessor, CLIPVisionConfig

        vision = CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
            projection_dim=8,
        )
        torch.manual_seed(0)
        checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
        with torch.no_grad():
            checker.concept_embeds.normal_()
            checker.special_care_embeds.normal_()
            checker.concept_embeds_weights.fill_(threshold)
            checker.special_care_embeds_weights.fill_(2.0)
        folder = tmp_path / f"checker{threshold}"
        checker.save_pretrained(folder / "safety_checker", safe_serialization=True)
        size = {"shortest_edge": 16}
        crop = {"height": 16, "width": 16}
        CLIPImageProcessor(size=size, crop_size=crop).save_pretrained(folder / "feature_extractor")
        return folder

    return save


def test_the_clip_checker_withholds_by_its_thresholds_and_warns_of_nothing(
    saved_checker: Callable[[float], Path],
    pipeline: StableDiffusionPipeline,
    model: ProtectedModel,
    capfd: pytest.CaptureFixture[str],
) -> None:
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 255, (20, 24, 3), dtype=np.uint8) for _ in range(3)]
    copies = [picture.copy() for picture in pictures]
    for threshold, withheld in ((-1.0, True), (1.5, False)):
        settings = PUBLISHED["safety-checker"].model_copy(update={"clip_checker": saved_checker(threshold)})
        [checker] = open_defence(settings, parts(pipeline)).protect(model).image_filters
        assert checker.blacks_out(pictures) == [withheld] * 3
        assert checker.blacks_out([]) == []
        assert "Stable Diffusion safety checker" in checker.description
    assert all(np.array_equal(left, right) for left, right in zip(pictures, copies, strict=True))
    assert "NSFW" not in capfd.readouterr().err
    missing = PUBLISHED["safety-checker"].model_copy(update={"clip_checker": Path("nowhere")})
    with pytest.raises(DataError, match=r"safety_checker/model\.safetensors is missing"):
        open_defence(missing, parts(pipeline))
