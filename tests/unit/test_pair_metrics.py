from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from safegen.domain.digests import sha256_file
from safegen.errors import DataError
from safegen.evaluation.contact_sheet import SheetPair, contact_sheet
from safegen.metrics.clip_pair import ClipPair, load_clip_pair
from safegen.metrics.clip_score import clip_scores
from safegen.metrics.feature_net import FeatureNet
from safegen.metrics.perceptual_distance import perceptual_distances
from tests.tiny_pipeline import WIDTH, tiny_clip, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip")
    tiny_clip(tiny_tokenizer(path)).save_pretrained(path)
    (path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3})
    )
    return path


@pytest.fixture(scope="module")
def clip(folder: Path) -> ClipPair:
    return load_clip_pair(folder, name="tiny")


def test_perceptual_distance_of_hand_made_states_is_the_mean_over_layers_and_patches() -> None:
    left = [torch.tensor([[[9.0, 9], [1, 0], [0, 2]]]), torch.tensor([[[0.0, 1], [1, 0], [1, 0]]])]
    right = [torch.tensor([[[0.0, 0], [0, 3], [0, 5]]]), torch.tensor([[[1.0, 0], [7, 0], [-1, 0]]])]
    # Layer 1: patches at right angles (2) and alike (0): 1. Layer 2: alike (0) and opposite (4): 2.
    assert perceptual_distances(left, right).tolist() == pytest.approx([1.5])
    assert perceptual_distances(left, left).tolist() == [0]


def test_clip_score_keeps_its_sign() -> None:
    pictures = torch.tensor([[1.0, 0], [1, 0], [2, 2]])
    prompts = torch.tensor([[5.0, 0], [-3, 0], [1, 0]])
    assert clip_scores(pictures, prompts).tolist() == pytest.approx([100, -100, 100 / 2**0.5])


def test_features_are_those_of_transformers_own_forward_pass(clip: ClipPair) -> None:
    images = torch.randint(
        0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    pixels = (images.float() / 255 - 0.5) / 0.25
    tokens = clip.tokenizer(["a key"] * 3, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        whole = clip.model(pixel_values=pixels, **tokens)
    net = FeatureNet(clip)
    assert net.num_features == WIDTH
    # CLIPModel.forward puts the projected features in the place of the pooled ones.
    first = whole.vision_model_output.last_hidden_state[:, 0]
    with torch.no_grad():
        torch.testing.assert_close(net(images), clip.model.vision_model.post_layernorm(first))
    pictures = list(images.permute(0, 2, 3, 1).numpy())
    ours = clip_scores(clip.picture_embeddings(pictures)[0], clip.text_embeddings(["a key"] * 3))
    theirs = (whole.image_embeds * whole.text_embeds).sum(1) * 100
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-4, atol=1e-4)


def test_pictures_of_another_size_are_brought_to_the_nets(clip: ClipPair) -> None:
    flat = np.full((40, 24, 3), 200, np.uint8)
    assert torch.allclose(
        clip.vision_input([flat]), torch.full((1, 3, 16, 16), (200 / 255 - 0.5) / 0.25), atol=1e-5
    )


def test_a_pair_says_which_weights_it_is_and_needs_its_normalisation(
    folder: Path, clip: ClipPair, tmp_path: Path
) -> None:
    assert clip.sha256 == sha256_file(folder / "model.safetensors")
    assert FeatureNet(clip).method["feature_net_sha256"] == clip.sha256
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(DataError, match="image_mean"):
        load_clip_pair(tmp_path, name="tiny")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors is missing"):
        load_clip_pair(tmp_path, name="tiny")


def test_a_contact_sheet_shows_pairs_censored_ones_in_few_colours() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    open_pair, hidden = SheetPair("a key", picture, None), SheetPair("e1", picture, picture, censored=True)
    sheet = np.asarray(contact_sheet("benign", [open_pair, hidden], columns=1))
    tiles = [sheet[30 + row * 168 : 30 + row * 168 + 144, 6:150] for row in range(2)]
    assert (tiles[0][1::3, 1::3] == picture).all()
    assert len(np.unique(tiles[1].reshape(-1, 3), axis=0)) <= 25
