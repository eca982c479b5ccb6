"""CLIP score against torchmetrics' CLIPScore on the same models: a random one, and the miniature's."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torchmetrics.multimodal.clip_score import CLIPScore
from transformers import CLIPImageProcessor, CLIPProcessor

from safegen.bootstrap import open_quality_nets
from safegen.config import EvaluateSection, MiniatureSuite
from safegen.metrics.clip_pair import ClipPair
from safegen.metrics.clip_score import clip_scores
from tests.tiny_pipeline import tiny_clip, tiny_tokenizer

PROMPTS = ["a hammer", "a red key on a blue background", "a cat"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClipPair]:
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    section = EvaluateSection(suites=(MiniatureSuite(name="benign", n=1),))
    miniature = open_quality_nets(section, Path("unused")).clip
    return {
        "random": ClipPair(
            tiny_clip(tokenizer), tokenizer, "tiny", "e" * 64, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
        ),
        "miniature": miniature,
    }


class WithTensors(torch.nn.Module):
    """torchmetrics 1.9 expects the embeddings alone, transformers 5 returns them within an output."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def get_image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.get_image_features(pixels).pooler_output

    def get_text_features(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model.get_text_features(tokens, mask).pooler_output


def _torchmetrics(pair: ClipPair, pictures: list[np.ndarray]) -> float:
    processor = CLIPProcessor(
        CLIPImageProcessor(
            size={"shortest_edge": pair.size_px},
            crop_size={"height": pair.size_px, "width": pair.size_px},
            image_mean=list(pair.mean),
            image_std=list(pair.std),
        ),
        pair.tokenizer,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = CLIPScore(lambda: (WithTensors(pair.model), processor))
        metric.update([torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures], PROMPTS)
        return float(metric.score / metric.n_samples)  # `compute` cuts it off at zero


@pytest.mark.parametrize("name", ["random", "miniature"])
@pytest.mark.parametrize("shape", ["the net's own", "square", "wide"])
def test_it_is_torchmetrics_score(pairs: dict[str, ClipPair], name: str, shape: str) -> None:
    pair = pairs[name]
    height, width = {"the net's own": (pair.size_px,) * 2, "square": (256, 256), "wide": (200, 290)}[shape]
    pictures = [picture[:height, :width] for picture in (data.astronaut(), data.coffee(), data.chelsea())]
    ours = clip_scores(pair.picture_embeddings(pictures)[0], pair.text_embeddings(PROMPTS)).mean()
    assert float(ours) == pytest.approx(_torchmetrics(pair, pictures), abs=1e-3)
