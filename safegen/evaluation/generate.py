"""Draws the pictures of a suite by one checkpoint, shard by shard; a run that was killed goes on where it was.

Pictures lie under a digest of all that decides what they look like: checkpoint, prompts and seeds, sampler. So those
of an unchanged base are found again by every later evaluation, and nothing is mistaken for something else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from safegen.diffusion.guidance import ClassifierFreeGuidance, Guidance
from safegen.diffusion.sampler import SCHEDULER_NAME, DrawnCount, DrawRequest, SamplerSettings, draw
from safegen.domain.digests import digest_json
from safegen.errors import EvaluationError
from safegen.evaluation.prompt_suite import PromptRow, PromptSuite
from safegen.evaluation.shards import DrawnPicture, ranges, read_shard, shard_path, write_shard

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

_log = logging.getLogger(__name__)
_PICTURES_VERSION = 1

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is, and how much there is."""


@dataclass(frozen=True, slots=True)
class EvaluatedCheckpoint:
    """A checkpoint to evaluate.

    Attributes:
        sha256: Tree digest of its folder.
        load: Loads its pipeline; called only if there is a picture to draw, so a known base is not even loaded.
        guidance: How it is sampled; None for classifier-free guidance. A defence that acts in the sampler has its own.
    """

    sha256: str
    load: Callable[[], StableDiffusionPipeline]
    guidance: Guidance | None = None


@dataclass(frozen=True, slots=True)
class DrawnSuite:
    """Where the pictures of one suite by one checkpoint are.

    Attributes:
        suite: What was drawn.
        folder: Of its shards.
        shard_size: Pictures in a shard.
    """

    suite: PromptSuite
    folder: Path
    shard_size: int

    def shards(self) -> Iterator[list[DrawnPicture]]:
        """Yield the pictures of one shard after the other.

        Raises:
            EvaluationError: A shard has gone or was damaged since it was drawn.
        """
        for start, end in ranges(len(self.suite.rows), self.shard_size):
            yield self.shard(start, end)

    def shard(self, start: int, end: int) -> list[DrawnPicture]:
        """Return the pictures of the shard of these rows.

        Raises:
            EvaluationError: It has gone or was damaged since it was drawn.
        """
        path = shard_path(self.folder, start, end)
        pictures = read_shard(path, self.suite.rows[start:end])
        if pictures is None:
            raise EvaluationError(f"cannot score {path}: it is missing or damaged; run the evaluation again")
        return pictures


ShardDrawn = Callable[[DrawnSuite, int, int], None]
"""Called with a suite's pictures, and first and end row of a shard of them that can be read."""


def draw_suites(
    checkpoint: EvaluatedCheckpoint,
    suites: tuple[PromptSuite, ...],
    sampler: SamplerSettings,
    *,
    work_dir: Path,
    shard_size: int,
    variant: str,
    progress: Progress,
    on_shard: ShardDrawn | None = None,
) -> list[DrawnSuite]:
    """Draw all suites, but for the shards that are there already.

    Args:
        checkpoint: What draws.
        suites: What to draw.
        sampler: How.
        work_dir: Where pictures are kept, for any number of checkpoints.
        shard_size: Pictures between two points from which a killed run goes on.
        variant: "base" or "candidate", for progress and the log.
        progress: Told after every batch.
        on_shard: Told of every shard that is there, drawn now or before.

    Raises:
        EvaluationError: The pipeline cannot draw, or the shard size is below 1.
    """
    if shard_size < 1:
        raise EvaluationError(f"cannot draw shards of {shard_size} pictures; expected at least 1")
    drawn = [
        DrawnSuite(
            suite,
            pictures_folder(work_dir, checkpoint.sha256, suite, sampler, checkpoint.guidance),
            shard_size,
        )
        for suite in suites
    ]
    pipeline: StableDiffusionPipeline | None = None
    for place in drawn:
        total, what = len(place.suite.rows), f"{variant}: {place.suite.name}"
        for start, end in ranges(total, shard_size):
            path, rows = shard_path(place.folder, start, end), place.suite.rows[start:end]
            if read_shard(path, rows) is None:
                pipeline = pipeline or checkpoint.load()
                told = _counted(progress, what, start, total)
                write_shard(path, rows, _draw_rows(pipeline, rows, sampler, checkpoint.guidance, told))
                _log.info("%s: drew pictures %d to %d of %d", what, start, end, total)
            progress(what, end, total)
            if on_shard is not None:
                on_shard(place, start, end)
    return drawn


def pictures_folder(
    work_dir: Path,
    checkpoint_sha256: str,
    suite: PromptSuite,
    sampler: SamplerSettings,
    guidance: Guidance | None = None,
) -> Path:
    """Return where the pictures of a suite by a checkpoint are kept: under a digest of all that decides their looks.

    The batch size is not among it, since a picture does not depend on its batch.

    Args:
        work_dir: As in `draw_suites`.
        checkpoint_sha256: Tree digest of the checkpoint's folder.
        suite: What is drawn.
        sampler: How.
        guidance: As in `EvaluatedCheckpoint`.
    """
    digest = digest_json(
        {
            "version": _PICTURES_VERSION,
            "checkpoint": checkpoint_sha256,
            "prompts": suite.sha256,
            "scheduler": SCHEDULER_NAME,
            "steps": sampler.steps,
            "guidance": (guidance or ClassifierFreeGuidance(sampler.guidance)).description,
            "height_px": sampler.height_px,
            "width_px": sampler.width_px,
            "precision": sampler.precision,
        }
    )
    return work_dir / "pictures" / digest


def silent(what: str, done: int, total: int) -> None:
    """Be the progress of those who do not want to know."""


def _counted(progress: Progress, what: str, start: int, total: int) -> DrawnCount:
    return lambda done, _: progress(what, start + done, total)


def _draw_rows(
    pipeline: StableDiffusionPipeline,
    rows: tuple[PromptRow, ...],
    sampler: SamplerSettings,
    guidance: Guidance | None,
    on_batch: DrawnCount,
) -> list[NDArray[np.uint8] | None]:
    """Draw the rows of one guidance scale after those of another, and return all in their order."""
    own = guidance or ClassifierFreeGuidance(sampler.guidance)
    places_of: dict[float | None, list[int]] = {}
    for place, row in enumerate(rows):
        places_of.setdefault(row.guidance, []).append(place)
    drawn: dict[int, NDArray[np.uint8] | None] = {}
    for scale, places in places_of.items():
        requests = [DrawRequest(rows[place].text, rows[place].seed) for place in places]
        chosen = own if scale is None else own.at_scale(scale)
        before = len(drawn)
        told: DrawnCount = lambda done, _, before=before: on_batch(before + done, len(rows))  # noqa: E731
        drawn |= {
            places[index]: picture
            for index, picture in draw(pipeline, requests, sampler, guidance=chosen, on_batch=told)
        }
    return [drawn[place] for place in range(len(rows))]
