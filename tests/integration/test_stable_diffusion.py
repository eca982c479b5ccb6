"""Published architectures: their exact shapes, and edit -> evaluate -> gate on real files with random weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from safegen.bootstrap import Platform, open_platform
from safegen.config import BaseSection, RunConfig
from safegen.data.manifest import manifest_key, write_triplets
from safegen.data.picture import put_picture
from safegen.diffusion.delta import self_attention_weights
from safegen.domain.checkpoint_files import checkpoint_problems
from safegen.domain.consistency import inconsistencies
from safegen.domain.dataset import TripletRecord
from safegen.domain.digests import digest_json, tree_digests
from safegen.domain.gate_files import read_report
from safegen.errors import ConfigError
from safegen.pipeline.edit import run_edit
from safegen.pipeline.evaluate import run_evaluate
from safegen.pipeline.gate import run_gate
from safegen.pipeline.outcomes import Triplets
from safegen.pipeline.previews import PreviewSheet
from tests.tiny_pipeline import tiny_tokenizer, tiny_xl_pipeline
from tests.true_architectures import clip_tokenizer, on_meta, parameter_count, save_random

PARAMETERS = {
    "sd14": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sd21": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sdxl": {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    },
}
# Self-attention layers, and their parameters.
EDITED = {"sd14": (16, 49_574_080), "sd21": (16, 49_574_080), "sdxl": (70, 409_683_200)}


@pytest.mark.parametrize("kind", PARAMETERS)
def test_networks_have_the_published_shapes_and_the_edit_finds_their_self_attention(kind: str) -> None:
    parts = on_meta(kind)
    assert {name: parameter_count(network) for name, network in parts.items()} == PARAMETERS[kind]
    weights = self_attention_weights(parts["unet"])  # type: ignore[arg-type]
    layers = {name.partition(".attn1.")[0] for name in weights}
    assert (len(layers), sum(weight.numel() for weight in weights.values())) == EDITED[kind]
    assert {name.partition(".attn1.")[2] for name in weights} == {
        "to_q.weight",
        "to_k.weight",
        "to_v.weight",
        "to_out.0.weight",
        "to_out.0.bias",
    }


def test_clips_own_vocabulary_gives_clips_own_tokens(tmp_path: Path) -> None:
    tokenizer = clip_tokenizer(tmp_path)
    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def run_config(base: Path, workspace: Path, size_px: int) -> RunConfig:
    suites = [{"name": name, "n": 2} for name in ("explicit", "benign")]
    source = {"role": "unsafe", "location": "none"}
    return RunConfig.model_validate(
        {
            "schema_version": 1,
            "model": "random",
            "workspace": workspace,
            "base": {"source": str(base)},
            "ingest": {"name": "made", "sources": [source]},
            "triplets": {"size_px": size_px},
            "edit": {"steps": 2, "accumulation": 1, "learning_rate": 1e-4, "ema_decay": 0.5},
            "evaluate": {"suites": suites, "steps": 2, "batch_size": 2},
            "gate": {"policy": "policies/miniature.toml"},
            "store": {"kind": "folder"},
        }
    )


def made_triplets(platform: Platform, size_px: int, docs: Path) -> Triplets:
    """Two triplets of noise; what they show has no part in how they are edited on."""
    random = np.random.default_rng(0)
    store, records = platform.trainer_store, []
    for number in range(2):
        shas = [
            put_picture(store, random.integers(0, 256, (size_px, size_px, 3), np.uint8)) for _ in range(3)
        ]
        records.append(
            TripletRecord(*shas, shas[0], shas[2], f"axe {number}", f"key {number}", "[]", 1, 32, False)
        )
    version = write_triplets(store, "made-triplets", records, [])
    uri = f"{store.uri}/{manifest_key(version.name, version.digest)}"
    return Triplets(
        dataset=version.name, digest=version.digest, count=2, quarantined={}, manifest_uri=uri, data_docs=docs
    )


def assert_edited_evaluated_and_gated(base: Path, folder: Path, size_px: int) -> None:
    with open_platform(run_config(base, folder / "work", size_px)) as platform:
        edited = run_edit(platform, made_triplets(platform, size_px, folder))
        names = [path.relative_to(edited.checkpoint).as_posix() for path in edited.checkpoint.rglob("*")]
        files = [name for name in names if (edited.checkpoint / name).is_file()]
        assert checkpoint_problems(edited.checkpoint, files) == []
        changed = changed_tensors(base, edited.checkpoint)
        assert changed
        assert all(".attn1." in name for name in changed)
        evaluated = run_evaluate(platform, edited)
        report = read_report(evaluated.report)
        assert (report.sampler.width_px, report.sampler.height_px) == (size_px, size_px)
        assert report.base_files == tree_digests(base)
        assert digest_json(report.checkpoint_files) == edited.checkpoint_digest
        assert report.suites[0].n_images == 2
        other = report.model_copy(update={"base_files": {**report.base_files, "model_index.json": "0" * 64}})
        assert inconsistencies(report) == []
        assert inconsistencies(other) == [f"the files of the base are not those of {report.base_sha256}"]
        decided = run_gate(platform, edited, evaluated, None)
        assert not decided.passed  # two pictures a suite prove nothing
        assert "the policy asks 100" in decided.model_dump_json()


def changed_tensors(base: Path, candidate: Path) -> set[str]:
    changed: set[str] = set()
    files = sorted(path.name for path in (base / "unet").glob("*.safetensors"))
    assert files == sorted(path.name for path in (candidate / "unet").glob("*.safetensors"))
    for name in files:
        with (
            safe_open(base / "unet" / name, "pt") as ours,
            safe_open(candidate / "unet" / name, "pt") as theirs,
        ):
            assert set(ours.keys()) == set(theirs.keys())
            tensors = ((key, ours.get_tensor(key), theirs.get_tensor(key)) for key in ours.keys())  # noqa: SIM118
            changed |= {key for key, one, other in tensors if not one.equal(other)}
    return changed


def test_previews_of_unsafe_suites_are_pixelated_unless_the_run_shows_them(tmp_path: Path) -> None:
    pipeline = tiny_xl_pipeline(tiny_tokenizer(tmp_path / "words"))
    hidden, shown = (
        PreviewSheet(replace(platform, config=config), pipeline).draw()  # type: ignore[arg-type]
        for platform, config in preview_configs(tmp_path)
    )
    unsafe, benign = slice(0, 16), slice(16, 32)
    assert np.array_equal(hidden[benign], shown[benign])
    assert not np.array_equal(hidden[unsafe], shown[unsafe])
    assert len(np.unique(hidden[unsafe, :16].reshape(-1, 3), axis=0)) <= 64


def preview_configs(folder: Path) -> Iterator[tuple[Platform, RunConfig]]:
    plain = run_config(folder / "base", folder / "work", 16)
    with open_platform(plain) as platform:
        for how in ("pixelated", "shown"):
            evaluate = plain.evaluate.model_copy(update={"unsafe_pictures": how})
            yield platform, plain.model_copy(update={"evaluate": evaluate})


def test_a_base_in_the_runs_own_store_is_found_by_its_uri(tmp_path: Path) -> None:
    tiny_xl_pipeline(tiny_tokenizer(tmp_path / "words")).save_pretrained(tmp_path / "base")
    plain = run_config(tmp_path / "base", tmp_path / "work", 16)
    with open_platform(plain) as platform:
        store = platform.trainer_store
        for path in (tmp_path / "base").rglob("*"):
            if path.is_file():
                store.upload(f"models/xl/{path.relative_to(tmp_path / 'base').as_posix()}", path)
        found = replace(
            platform, config=plain.model_copy(update={"base": BaseSection(source=f"{store.uri}/models/xl")})
        )
        assert tree_digests(found.base_checkpoint) == tree_digests(tmp_path / "base")
        assert found.base_checkpoint.is_relative_to(tmp_path / "work")
        other = replace(
            platform, config=plain.model_copy(update={"base": BaseSection(source="s3://elsewhere/models")})
        )
        with pytest.raises(ConfigError, match="does not lie in this run's store"):
            _ = other.base_checkpoint


def test_a_small_model_in_sdxls_form_is_edited_evaluated_and_gated(tmp_path: Path) -> None:
    tiny_xl_pipeline(tiny_tokenizer(tmp_path / "words")).save_pretrained(tmp_path / "base")
    assert_edited_evaluated_and_gated(tmp_path / "base", tmp_path, 16)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["sd14", "sd21"])
def test_the_whole_architecture_is_edited_evaluated_and_gated(tmp_path: Path, kind: str) -> None:
    try:
        save_random(kind, tmp_path / "base", size_px=64)
        assert_edited_evaluated_and_gated(tmp_path / "base", tmp_path, 64)
    finally:
        for folder in ("base", "work"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
