"""Checkpoints and deltas made to run code, to lie about their size, or to draw nothing: refused, nothing loaded."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from safegen.diffusion.checkpoint import load_pipeline
from safegen.diffusion.delta import apply_delta, save_delta
from safegen.errors import DataError
from safegen.release.chunking import chunk_sizes
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    tiny_pipeline(tiny_tokenizer(folder / "words")).save_pretrained(folder / "tiny", safe_serialization=True)
    return folder / "tiny"


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def edit_index(**changes: object) -> Callable[[Path], object]:
    def trick(folder: Path) -> None:
        path = folder / "model_index.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return trick


def edit_tensors(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def trick(folder: Path) -> None:
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name, metadata={"format": "pt"})

    return trick


def set_first(value: float) -> Callable[[dict[str, torch.Tensor]], object]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        next(iter(tensors.values())).view(-1)[0] = value

    return change


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def lying_header(entry: dict[str, object], data: bytes = b"\0" * 8) -> bytes:
    header = json.dumps({"w": entry}).encode()
    return len(header).to_bytes(8, "little") + header + data


LIES = {
    "a header longer than the file": (2**62).to_bytes(8, "little") + b"{}",
    "no header": b"\0" * 8,
    "a tensor beyond the end": lying_header({"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}),
    "a negative offset": lying_header({"dtype": "F32", "shape": [2], "data_offsets": [-8, 8]}),
    "an overlap": lying_header({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}),
    "no JSON": (4).to_bytes(8, "little") + b"{{{{",
    "nested without end": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "a list": (2).to_bytes(8, "little") + b"[]",
    "offsets of another kind": lying_header({"dtype": "F32", "shape": [2], "data_offsets": {"0": 8}}),
}

TRICKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a part from any module": (edit_index(unet=["antigravity", "UNet"]), "antigravity"),
    "a pipeline of a module beside it": (
        edit_index(unet=["diffusers_modules.local.unet", "UNet"]),
        "diffusers_modules",
    ),
    "remote code further inside": (
        write("unet/config.json", b'{"deep": [{"auto_map": {"AutoModel": "x.Y"}}]}'),
        "asks for code",
    ),
    "a config nested without end": (write("vae/config.json", b"[" * 200_000), "vae/config.json"),
    "a config that is a list": (write("vae/config.json", b"[]"), "vae/config.json is no JSON object"),
    "a NaN in the U-Net": (edit_tensors(UNET, set_first(float("nan"))), "not finite"),
    "an infinity in the text encoder": (edit_tensors(TEXT, set_first(float("inf"))), "not finite"),
    "a U-Net without a tensor": (
        edit_tensors(UNET, lambda t: t.pop(next(iter(t)))),
        "unet lacks 1 tensors (first: conv_in",
    ),
    "a text encoder without a tensor": (
        edit_tensors(TEXT, lambda t: t.pop(next(iter(t)))),
        "text_encoder lacks 1 tensors",
    ),
    "a tensor of another shape": (
        edit_tensors(UNET, lambda t: t.update({next(iter(t)): torch.zeros(3)})),
        "cannot be loaded",
    ),
} | {name: (write(UNET, content), "cannot be loaded") for name, content in LIES.items()}


@pytest.mark.parametrize("name", TRICKS)
def test_a_hostile_checkpoint_is_refused(checkpoint: Path, name: str) -> None:
    trick, reason = TRICKS[name]
    trick(checkpoint)
    before = set(sys.modules)
    with pytest.raises(DataError) as refused:
        load_pipeline(checkpoint)
    assert "antigravity" not in set(sys.modules) - before
    message = str(refused.value)
    assert any(part in message for part in reason.split("|")), message
    assert len(message.splitlines()) == 1, message


@pytest.mark.parametrize("name", LIES)
def test_a_lying_header_is_not_cut_into_blobs(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(LIES[name])
    with pytest.raises(DataError):
        chunk_sizes(path)


def test_a_delta_that_draws_nothing_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(checkpoint)
    path = tmp_path / "delta.safetensors"
    save_delta(pipeline.unet, path)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, path, metadata=metadata)
    before = {name: weight.clone() for name, weight in pipeline.unet.state_dict().items()}
    with pytest.raises(DataError, match="not finite"):
        apply_delta(pipeline, path)
    assert all(torch.equal(before[name], weight) for name, weight in pipeline.unet.state_dict().items())


def test_a_delta_cannot_change_what_lies_outside_self_attention(checkpoint: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(checkpoint)
    path = tmp_path / "delta.safetensors"
    save_delta(pipeline.unet, path)
    name = next(name for name in pipeline.unet.state_dict() if ".attn1." not in name)
    tensors = load_file(path) | {name: torch.zeros_like(pipeline.unet.state_dict()[name])}
    save_file(tensors, path, metadata={"format": "safegen-attn1-delta/1"})
    with pytest.raises(DataError, match="do not fit this U-Net"):
        apply_delta(pipeline, path)


@pytest.mark.parametrize("name", LIES)
def test_a_lying_delta_is_refused(checkpoint: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "delta.safetensors"
    path.write_bytes(LIES[name])
    with pytest.raises(DataError):
        apply_delta(load_pipeline(checkpoint), path)
