"""A weight edit is made once: what it changed is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from safegen.defences.defence import ProtectedModel
from safegen.defences.weight_edit import EditedWeights
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer


class CountedEdit:
    """Adds one to a bias, and counts how often it does."""

    name, text_dependent, parts = "counted", False, ("unet",)

    def __init__(self, seed: int = 0) -> None:
        self.made, self._seed = 0, seed

    @property
    def identity(self) -> Mapping[str, object]:
        return {"seed": self._seed}

    def edit(self, pipeline: StableDiffusionPipeline, **_: object) -> None:
        self.made += 1
        with torch.no_grad():
            pipeline.unet.conv_out.bias += 1


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ProtectedModel:
    return ProtectedModel("b" * 64, tiny_pipeline(tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))))


def test_a_finished_edit_is_read_and_not_made_again(model: ProtectedModel, tmp_path: Path) -> None:
    before = model.pipeline.unet.conv_out.bias.clone()
    first, again = CountedEdit(), CountedEdit()
    made = EditedWeights(first, tmp_path).protect(model)
    read = EditedWeights(again, tmp_path).protect(model)
    assert (first.made, again.made) == (1, 0)
    assert made.sha256 == read.sha256
    for one in (made, read):
        assert torch.equal(one.pipeline.unet.conv_out.bias, before + 1)
    assert torch.equal(model.pipeline.unet.conv_out.bias, before)
    [file] = tmp_path.glob("*.safetensors")
    assert list(load_file(file)) == ["unet.conv_out.bias"]

    file.write_bytes(file.read_bytes()[:-1])
    other = CountedEdit()
    EditedWeights(other, tmp_path).protect(model)
    EditedWeights(CountedEdit(1), tmp_path).protect(model)
    assert other.made == 1
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
