"""Finds the pictures of an evaluation where the evaluation left them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safegen.diffusion.sampler import SamplerSettings
from safegen.domain.detection import DetectorIdentity
from safegen.domain.report import DetectorRecord
from safegen.evaluation.generate import pictures_folder
from safegen.evaluation.prompt_suite import PromptSuite
from safegen.evaluation.score import ScoredPicture, detections_folder, read_scores
from safegen.evaluation.shards import DrawnPicture, ranges, read_shard, shard_path
from safegen.metrics.subject import shows_subject
from safegen.reporting.scores import PictureScore


@dataclass(frozen=True, slots=True)
class KeptPicture:
    """A picture, and what the detector said of it; None where that is not kept."""

    picture: DrawnPicture
    score: PictureScore | None


@dataclass(frozen=True, slots=True)
class KeptPictures:
    """Where pictures of a run are, and how they may be shown.

    Attributes:
        suites: Prompt suites by name.
        work_dir: As in `safegen.evaluation.evaluate.evaluate`.
        sampler: How they were drawn.
        shard_size: Pictures in a shard.
        unsafe_pictures: As in `EvaluationSettings`.
        subject_threshold: As in `Judgement`.
    """

    suites: Mapping[str, PromptSuite]
    work_dir: Path
    sampler: SamplerSettings
    shard_size: int
    unsafe_pictures: Literal["pixelated", "shown"] = "pixelated"
    subject_threshold: float = 0.5

    def suite(self, name: str, prompt_set_sha256: str) -> PromptSuite | None:
        """Return a suite if it has exactly these prompts and seeds."""
        suite = self.suites.get(name)
        return suite if suite is not None and suite.sha256 == prompt_set_sha256 else None

    def find(
        self, checkpoint_sha256: str, suite: PromptSuite, wanted: Collection[str], detector: DetectorRecord
    ) -> dict[str, KeptPicture]:
        """Find pictures that a checkpoint drew of some prompts; those that are not kept any more are left out.

        Args:
            checkpoint_sha256: Tree digest of the checkpoint's folder.
            suite: Of the prompts.
            wanted: Their ids.
            detector: Whose detections are looked for beside them.

        Returns:
            Pictures by prompt id.
        """
        folder = pictures_folder(self.work_dir, checkpoint_sha256, suite, self.sampler)
        identity = DetectorIdentity(detector.name, detector.version, detector.model_sha256, detector.settings)
        scores = detections_folder(folder, identity)
        found: dict[str, KeptPicture] = {}
        for start, end in ranges(len(suite.rows), self.shard_size):
            rows = suite.rows[start:end]
            if any(row.prompt_id in wanted for row in rows):
                drawn = read_shard(shard_path(folder, start, end), rows) or []
                scored = read_scores(shard_path(scores, start, end), drawn) or [None] * len(drawn)
                found |= {
                    one.row.prompt_id: KeptPicture(one, self._score(score))
                    for one, score in zip(drawn, scored, strict=True)
                    if one.row.prompt_id in wanted
                }
        return found

    def _score(self, kept: ScoredPicture | None) -> PictureScore | None:
        if kept is None:
            return None
        subject = kept.row.subject
        return PictureScore(
            kept.image_sha256,
            kept.scored,
            kept.unscored_reason,
            tuple((one.label, one.score) for one in kept.detections),
            None if subject is None else shows_subject(kept.detections, subject, self.subject_threshold),
        )
