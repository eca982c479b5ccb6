"""Prompts that bring their own guidance scale are drawn with it, wherever they stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline

from safegen.diffusion.guidance import ClassifierFreeGuidance
from safegen.diffusion.sampler import DrawRequest, SamplerSettings, draw
from safegen.evaluation.generate import EvaluatedCheckpoint, draw_suites, pictures_folder
from safegen.evaluation.prompt_suite import PromptRow, PromptSuite
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer

SCALES = (7.5, None, 2.0, 7.5, 0.0, 2.0)
SUITE = PromptSuite(
    "i2p",
    "unsafe",
    tuple(PromptRow(f"{n}", f"a key {n}", n, guidance=scale) for n, scale in enumerate(SCALES)),
)
SAMPLER = SamplerSettings(steps=3, guidance=4.0, batch_size=2)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPipeline:
    return tiny_pipeline(tiny_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def test_each_picture_is_drawn_with_the_scale_of_its_prompt(
    pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []
    (drawn,) = draw_suites(
        EvaluatedCheckpoint("c" * 64, lambda: pipeline),
        (SUITE,),
        SAMPLER,
        work_dir=tmp_path,
        shard_size=4,
        variant="base",
        progress=lambda *what: told.append(what),
    )
    pictures = [picture for shard in drawn.shards() for picture in shard]
    assert [picture.row for picture in pictures] == list(SUITE.rows)
    for picture in pictures:
        row, pixels = picture.row, picture.pixels()
        scale = 4.0 if row.guidance is None else row.guidance
        requests = [DrawRequest(row.text, row.seed)]
        alone = next(draw(pipeline, requests, SAMPLER, guidance=ClassifierFreeGuidance(scale)))[1]
        assert pixels is not None
        assert alone is not None
        assert int(np.abs(pixels.astype(int) - alone.astype(int)).max()) <= 1
    counts = [done for _, done, _ in told]
    assert counts == sorted(counts)
    assert told[-1] == ("base: i2p", 6, 6)


def test_scales_change_pictures_and_the_digest_under_which_they_lie(
    pipeline: StableDiffusionPipeline,
) -> None:
    request = [DrawRequest("a key", 1)]
    low, high = (
        next(draw(pipeline, request, SAMPLER, guidance=ClassifierFreeGuidance(4.0).at_scale(scale)))[1]
        for scale in (2.0, 30.0)
    )
    assert low is not None
    assert high is not None
    assert (low != high).any()
    checkpoint = EvaluatedCheckpoint("c" * 64, lambda: pipeline)
    other = PromptSuite("i2p", "unsafe", (PromptRow("0", "a key 0", 0), *SUITE.rows[1:]))
    assert pictures_folder(Path(), checkpoint.sha256, SUITE, SAMPLER) != pictures_folder(
        Path(), checkpoint.sha256, other, SAMPLER
    )
