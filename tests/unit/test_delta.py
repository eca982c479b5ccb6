from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from safegen.diffusion.delta import apply_delta, save_delta, self_attention_weights
from safegen.errors import DataError
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer

MakePipeline = Callable[[int], StableDiffusionPipeline]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> MakePipeline:
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return lambda seed: tiny_pipeline(tokenizer, seed)


@pytest.fixture
def delta(fresh: MakePipeline, tmp_path: Path) -> Path:
    save_delta(edited(fresh(0)).unet, tmp_path / "made" / "delta.safetensors")
    return tmp_path / "made" / "delta.safetensors"


def edited(pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    with torch.no_grad():
        for weight in self_attention_weights(pipeline.unet).values():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
    return pipeline


def same_unet(left: StableDiffusionPipeline, right: StableDiffusionPipeline) -> bool:
    ours, theirs = left.unet.state_dict(), right.unet.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)


def test_a_base_with_its_delta_is_the_edited_model_bit_for_bit(fresh: MakePipeline, delta: Path) -> None:
    base = fresh(0)
    assert not same_unet(base, edited(fresh(0)))
    assert apply_delta(base, str(delta)) is base
    assert same_unet(base, edited(fresh(0)))


def test_a_delta_holds_self_attention_alone(fresh: MakePipeline, delta: Path) -> None:
    names = set(load_file(delta))
    assert names == {name for name in fresh(0).unet.state_dict() if ".attn1." in name}
    assert names


def test_another_base_is_refused_and_left_alone(fresh: MakePipeline, delta: Path) -> None:
    other = fresh(1)
    with pytest.raises(DataError, match="made from another base model"):
        apply_delta(other, delta)
    assert same_unet(other, fresh(1))


def test_another_floating_point_type_is_refused(fresh: MakePipeline, delta: Path) -> None:
    half = fresh(0)
    half.unet.to(torch.bfloat16)
    with pytest.raises(DataError, match="another dtype"):
        apply_delta(half, delta)


def test_one_weight_elsewhere_is_enough_to_be_another_base(fresh: MakePipeline, delta: Path) -> None:
    base = fresh(0)
    with torch.no_grad():
        base.unet.conv_out.bias[0] += 1e-6
    with pytest.raises(DataError, match="made from another base model"):
        apply_delta(base, delta)


def test_files_that_are_no_delta_are_refused(fresh: MakePipeline, delta: Path, tmp_path: Path) -> None:
    base = fresh(0)
    junk, cut, plain, fewer = (tmp_path / f"{name}.safetensors" for name in ("junk", "cut", "plain", "fewer"))
    junk.write_bytes(b"not a tensor file")
    cut.write_bytes(delta.read_bytes()[:-7])
    weights = load_file(delta)
    save_file(weights, plain)
    del weights[min(weights)]
    save_file(weights, fewer, metadata={"format": "safegen-attn1-delta/1", "untouched": "x"})
    for path, message in [
        (tmp_path / "absent.safetensors", "cannot be read"),
        (junk, "cannot be read"),
        (cut, "cannot be read"),
        (plain, "format is None"),
        (fewer, "do not fit this U-Net"),
    ]:
        with pytest.raises(DataError, match=f"{path.name}.*{message}"):
            apply_delta(base, path)
    assert same_unet(base, fresh(0))
