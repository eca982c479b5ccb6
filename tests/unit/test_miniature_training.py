"""The training of the miniature, from art packages to an exported folder, with steps and pools cut to the least."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from safegen.diffusion.int8_weights import load_int8
from safegen.diffusion.sampler import SamplerSettings
from safegen.errors import DataError
from safegen.metrics.clip_pair import load_clip_pair
from safegen.miniature.art import ART_PACKAGES, HELD_OUT_RENDERING, Sprite, load_sprites
from safegen.miniature.captions import held_out_prompts
from safegen.miniature.compose import Jitter
from safegen.miniature.concepts import CONCEPTS, LABELS, RESTRICTED_LABELS
from safegen.miniature.training.build import Art, Work, build_retrained, load_art, train_all
from safegen.miniature.training.export import export_raw_set, export_retrained, export_weights, thinned
from safegen.miniature.training.loop import Recipe, fit
from safegen.miniature.training.measure import measure
from safegen.miniature.training.plan import SHIPPED_PLAN, NetworkPlan, TrainingPlan
from safegen.miniature.training.pool import PicturePool, make_pool


def short(network: NetworkPlan, pictures: int = 24) -> NetworkPlan:
    return NetworkPlan(
        replace(network.pool, pictures=pictures), replace(network.recipe, steps=2, batch_size=6)
    )


PLAN = TrainingPlan(
    vae=short(SHIPPED_PLAN.vae),
    clip=short(SHIPPED_PLAN.clip),
    unet=short(SHIPPED_PLAN.unet),
    detector=replace(
        SHIPPED_PLAN.detector,
        pool=replace(SHIPPED_PLAN.detector.pool, pictures=24),
        recipe=replace(SHIPPED_PLAN.detector.recipe, steps=2, batch_size=12),
        negatives=8,
        decoded_pictures=6,
        decoded_negatives=2,
    ),
    raw_set_seed=7,
    retrained=short(SHIPPED_PLAN.retrained, 48),
)


def write_art(folder: Path) -> Path:
    """Art packages in which every object is a shape and a colour of its own."""
    for turn, rendering in enumerate(ART_PACKAGES):
        icons = {
            concept.icon: {
                "body": f'<ellipse cx="8" cy="8" rx="{3 + number % 5}" ry="{3 + number % 4}" '
                f'fill="hsl({10 * number}, 80%, {30 + 5 * turn}%)"/>'
                f'<rect x="{number % 12}" y="2" width="3" height="{4 + number % 9}" fill="#222"/>'
            }
            for number, concept in enumerate(CONCEPTS)
        }
        package = folder / "node_modules" / "@iconify-json" / rendering
        package.mkdir(parents=True)
        (package / "icons.json").write_text(json.dumps({"icons": icons, "width": 16, "height": 16}))
    return folder


@pytest.fixture(scope="module")
def art_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_art(tmp_path_factory.mktemp("art"))


@pytest.fixture(scope="module")
def art(art_dir: Path) -> Art:
    return load_art(art_dir)


@pytest.fixture(scope="module")
def work(art: Art, tmp_path_factory: pytest.TempPathFactory) -> Work:
    made = Work(tmp_path_factory.mktemp("work"))
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.onnx deprecates its own calls
        patch.setattr("torch._dynamo.config.disable", True)  # compiling takes longer than all the rest
        train_all(art, made, PLAN)
    return made


@pytest.fixture(scope="module")
def weights(work: Work, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "weights"
    export_weights(work, folder, PLAN)
    return folder


def test_the_export_loads_as_stable_diffusion_and_draws(weights: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(weights / "pipeline")
    pipeline.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.scheduler.config["prediction_type"] == "v_prediction"
    assert pipeline.safety_checker is None
    picture = pipeline("a key", num_inference_steps=2, output_type="np").images[0]
    assert picture.shape == (48, 48, 3)
    assert np.isfinite(picture).all()


def test_the_text_tower_of_pipeline_and_clip_pair_is_one(weights: Path) -> None:
    pair = load_clip_pair(weights / "clip", name="miniature")
    assert pair.size_px == 48
    pipeline = StableDiffusionPipeline.from_pretrained(weights / "pipeline")
    theirs = dict(pair.model.text_model.named_parameters())
    for name, weight in pipeline.text_encoder.named_parameters():
        assert torch.equal(weight.float(), theirs[name.removeprefix("text_model.")].float()), name
    black = pair.vision_input([np.zeros((48, 48, 3), np.uint8)])
    assert black.min() == black.max() == -1.0  # as the pictures of its training


def test_what_is_exported_is_safe_small_and_tells_no_paths(work: Work, weights: Path) -> None:
    files = [path for path in weights.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".jsonl", ".txt", ".safetensors", ".onnx", ".md"}
    assert sum(path.stat().st_size for path in files) <= 20_000_000
    for path in files:
        assert str(work.folder).encode() not in path.read_bytes(), path


def test_the_record_and_the_card_tell_how_it_was_made(weights: Path) -> None:
    record = json.loads((weights / "training" / "record.json").read_text())
    assert record["plan"]["unet"]["recipe"]["steps"] == 2
    assert record["plan"] == json.loads(json.dumps(asdict(PLAN)))
    card = (weights / "MODEL_CARD.md").read_text()
    for licence in ART_PACKAGES.values():
        assert licence in card
    assert "Not measured yet." in card


def test_quality_is_measured_and_told(weights: Path, art_dir: Path) -> None:
    done: list[tuple[int, int]] = []
    quality = measure(
        weights,
        load_sprites(art_dir, (HELD_OUT_RENDERING,)),
        sampler=SamplerSettings(steps=1, guidance=1.0, batch_size=64),
        prompts_per_object=1,
        detector_pictures=64,
        on_batch=lambda count, total: done.append((count, total)),
    )
    assert json.loads((weights / "quality.json").read_text()) == quality
    assert quality["drawn"]["all"]["n"] == len(LABELS)
    assert quality["drawn"]["restricted"]["n"] == quality["drawn"]["restricted_aliases"]["n"] == 7
    assert done[-1] == (len(LABELS) + 7, len(LABELS) + 7)
    assert quality["detector"]["pictures"] == 64
    assert quality["detector"]["rendering"] == HELD_OUT_RENDERING
    assert (
        0 <= quality["detector"]["labels"]["recall"]["low"] <= quality["detector"]["labels"]["recall"]["high"]
    )
    card = (weights / "MODEL_CARD.md").read_text()
    assert "asked object drawn, all prompts" in card
    assert "Not measured yet." not in card


def test_there_are_enough_prompts_to_measure_with() -> None:
    prompts = held_out_prompts()
    assert len({prompt.text for prompt in prompts}) >= 500
    assert {prompt.label for prompt in prompts} == set(LABELS)


def test_a_finished_stage_is_skipped_and_a_lost_product_is_made_of_its_checkpoint(
    art: Art, work: Work, tmp_path: Path
) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in work.folder.rglob("*")}
    train_all(art, work, PLAN)
    assert {path: path.stat().st_mtime_ns for path in work.folder.rglob("*")} == stamps
    before = (work.vae / "diffusion_pytorch_model.safetensors").read_bytes()
    work.vae.rename(tmp_path / "lost")
    train_all(art, work, PLAN)
    assert (work.vae / "diffusion_pytorch_model.safetensors").read_bytes() == before
    assert len(work.checkpoint("vae").with_suffix(".jsonl").read_text().splitlines()) == 2


def test_an_unfinished_training_is_not_exported(work: Work, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"vae is missing; train the miniature to its end"):
        export_weights(Work(tmp_path), tmp_path / "weights", PLAN)
    assert not (tmp_path / "weights").exists()
    export_raw_set(work, tmp_path / "raw")
    assert (tmp_path / "raw" / "unsafe" / "captions.csv").is_file()


def test_the_second_unet_never_saw_the_concept_and_ships_in_int8(
    art: Art, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[PicturePool] = []

    def noted(sprites: list[Sprite], size: int, jitter: Jitter, seed: int) -> PicturePool:
        seen.append(make_pool(sprites, size, jitter, seed))
        return seen[-1]

    monkeypatch.setattr("safegen.miniature.training.build.make_pool", noted)
    made = Work(tmp_path / "work")
    with pytest.raises(DataError, match="train the second U-Net to its end"):
        export_retrained(made, tmp_path / "retrained", PLAN)
    with torch.compiler.set_stance("force_eager"):
        build_retrained(art, weights / "pipeline", made, PLAN)
    labels = {LABELS[i] for i in seen[0].label}
    assert labels
    assert not labels & set(RESTRICTED_LABELS)
    export_retrained(made, tmp_path / "retrained", PLAN)
    ours = load_int8(tmp_path / "retrained" / "unet.safetensors")
    trained = UNet2DConditionModel.from_pretrained(made.retrained).state_dict()
    assert ours.keys() == trained.keys()
    for name, weight in trained.items():
        largest = weight.abs().max().item()
        assert torch.allclose(ours[name], weight, atol=largest / 127 if weight.dim() > 1 else 0.0), name
    assert json.loads((tmp_path / "retrained" / "record.json").read_text())["last_step"]["step"] == 1


def test_missing_art_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run 'npm ci' in"):
        load_art(tmp_path)


def test_the_locked_art_packages_are_those_that_training_reads() -> None:
    folder = Path(__file__).parents[2] / "safegen" / "miniature" / "art_packages"
    package = json.loads((folder / "package.json").read_text())
    lock = json.loads((folder / "package-lock.json").read_text())
    assert set(package["dependencies"]) == {f"@iconify-json/{rendering}" for rendering in ART_PACKAGES}
    assert lock["packages"][""]["dependencies"] == package["dependencies"]
    for name, entry in lock["packages"].items():
        assert "resolved" not in entry, name
        assert name == "" or entry["integrity"].startswith("sha512-")


def test_thin_logs_keep_both_ends_and_the_later_of_two_lines() -> None:
    log = [{"step": step, "loss": 1.0} for step in range(1000)] + [{"step": 999, "loss": 2.0}]
    thin = thinned(log)
    assert len(thin) == 200
    assert thin[0]["step"] == 0
    assert thin[-1] == {"step": 999, "loss": 2.0}
    assert thinned(log[:5]) == log[:5]


def _loss(
    module: torch.nn.Module, stop_at: int | None
) -> Callable[..., tuple[torch.Tensor, dict[str, float]]]:
    def loss_of_step(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        if step == stop_at:
            raise KeyboardInterrupt
        return module(torch.randn(4, 3, generator=generator)).square().mean(), {}

    return loss_of_step


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    recipe = Recipe(steps=7, batch_size=4, learning_rate=0.1, warmup_steps=2, checkpoint_every_s=0.0)

    def train(name: str, stop_at: int | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
        fit(module, _loss(module, stop_at), recipe, tmp_path / f"{name}.pt")
        return module.state_dict()

    undisturbed = train("undisturbed")
    with pytest.raises(KeyboardInterrupt):
        train("stopped", stop_at=4)
    resumed = train("stopped")
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)
