"""Pictures of an edit's progress: a few fixed prompts and seeds, drawn again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from safegen.bootstrap import Platform
from safegen.evaluation.contact_sheet import pixelated
from safegen.pipeline.evaluate import sampler_settings

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

_PER_SUITE = 8


class PreviewSheet:
    """Draws one row of pictures for each suite of the run; unsafe ones pixelated, unless the run shows them."""

    def __init__(self, platform: Platform, pipeline: StableDiffusionPipeline) -> None:
        """Choose the prompts.

        Args:
            platform: Of the run.
            pipeline: The pipeline whose U-Net is being edited.
        """
        from safegen.diffusion.sampler import DrawRequest
        from safegen.pipeline.suites import open_suites

        self._pipeline = pipeline
        self._settings = sampler_settings(platform.config.evaluate)
        suites = open_suites(platform.config)
        self._rows = [
            [DrawRequest(row.text, row.seed) for row in suite.rows[:_PER_SUITE]] for suite in suites
        ]
        hidden = platform.config.evaluate.unsafe_pictures == "pixelated"
        self._hidden = [hidden and suite.kind == "unsafe" for suite in suites]

    def draw(self) -> NDArray[np.uint8]:
        """Return the sheet as it looks now, (H, W, 3) uint8 RGB."""
        from safegen.diffusion.sampler import draw

        requests = [request for row in self._rows for request in row]
        drawn = [picture for _, picture in draw(self._pipeline, requests, self._settings)]
        shape = next(picture.shape for picture in drawn if picture is not None)
        filled = [np.zeros(shape, np.uint8) if picture is None else picture for picture in drawn]
        rows: list[NDArray[np.uint8]] = []
        for row, hidden in zip(self._rows, self._hidden, strict=True):
            tiles, filled = filled[: len(row)], filled[len(row) :]
            if hidden:
                tiles = [np.asarray(pixelated(Image.fromarray(tile))) for tile in tiles]
            tiles += [np.full(shape, 255, np.uint8)] * (_PER_SUITE - len(tiles))
            rows.append(np.concatenate(tiles, axis=1))
        return np.concatenate(rows, axis=0)
