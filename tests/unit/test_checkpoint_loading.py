from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from safegen.diffusion.checkpoint import load_pipeline
from safegen.errors import DataError
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_pipeline(tiny_tokenizer(folder / "words")).save_pretrained(folder / "tiny", safe_serialization=True)
    return folder / "tiny"


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_of_safetensors_loads(checkpoint: Path) -> None:
    pipeline = load_pipeline(checkpoint)
    assert isinstance(pipeline, StableDiffusionPipeline)
    assert pipeline.unet.dtype == torch.float32
    assert load_pipeline(checkpoint, torch.bfloat16).unet.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "name", ["unet/diffusion_pytorch_model.bin", "model.ckpt", "vae/weights.safe", "extra.pt"]
)
def test_a_pickle_is_refused_and_not_loaded(checkpoint: Path, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "was-run"
    (checkpoint / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (checkpoint / name).write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(DataError, match=f"{name} is a pickle file.*safetensors only"):
        load_pipeline(checkpoint)
    assert not mark.exists()


def test_the_trap_would_have_sprung(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "was-run")))
    assert (tmp_path / "was-run").exists()


def test_configurations_that_ask_for_code_are_refused(checkpoint: Path) -> None:
    change_json(checkpoint / "text_encoder" / "config.json", auto_map={"AutoModel": "mine.Model"})
    with pytest.raises(DataError, match=r"text_encoder/config\.json asks for code"):
        load_pipeline(checkpoint)


@pytest.mark.parametrize("name", ["pipeline.py", "unet/own_unet.py"])
def test_code_in_the_folder_is_refused_and_not_run(checkpoint: Path, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "was-run"
    (checkpoint / name).write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    change_json(checkpoint / "model_index.json", _class_name=["pipeline", "Own"], unet=["own_unet", "Own"])
    with pytest.raises(DataError, match=f"{name} is code"):
        load_pipeline(checkpoint)
    assert not mark.exists()


def test_what_is_missing_or_damaged_is_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent: model_index\.json is missing"):
        load_pipeline(tmp_path / "absent")
    weights = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be loaded as Stable Diffusion"):
        load_pipeline(checkpoint)
    (checkpoint / "unet" / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"unet/config\.json is not readable JSON"):
        load_pipeline(checkpoint)
    (checkpoint / "model_index.json").unlink()
    with pytest.raises(DataError, match=r"model_index\.json is missing"):
        load_pipeline(checkpoint)


def test_a_damaged_text_encoder_is_named_too(checkpoint: Path) -> None:
    weights = checkpoint / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be loaded as Stable Diffusion"):
        load_pipeline(checkpoint)


def test_a_folder_without_weights_is_refused(checkpoint: Path) -> None:
    for weights in checkpoint.rglob("*.safetensors"):
        weights.unlink()
    with pytest.raises(DataError, match=r"no \.safetensors file"):
        load_pipeline(checkpoint)
