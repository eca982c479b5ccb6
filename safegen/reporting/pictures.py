"""Finds the pictures of an evaluation where the evaluation left them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safegen.diffusion.sampler import SamplerSettings
from safegen.evaluation.generate import pictures_folder
from safegen.evaluation.prompt_suite import PromptSuite
from safegen.evaluation.shards import DrawnPicture, ranges, read_shard, shard_path


@dataclass(frozen=True, slots=True)
class KeptPictures:
    """Where pictures of a run are, and how they may be shown.

    Attributes:
        suites: Prompt suites by name.
        work_dir: As in `safegen.evaluation.evaluate.evaluate`.
        sampler: How they were drawn.
        shard_size: Pictures in a shard.
        unsafe_pictures: As in `EvaluationSettings`.
    """

    suites: Mapping[str, PromptSuite]
    work_dir: Path
    sampler: SamplerSettings
    shard_size: int
    unsafe_pictures: Literal["pixelated", "shown"] = "pixelated"

    def suite(self, name: str, prompt_set_sha256: str) -> PromptSuite | None:
        """Return a suite if it has exactly these prompts and seeds."""
        suite = self.suites.get(name)
        return suite if suite is not None and suite.sha256 == prompt_set_sha256 else None

    def find(
        self, checkpoint_sha256: str, suite: PromptSuite, wanted: Collection[str]
    ) -> dict[str, DrawnPicture]:
        """Find pictures that a checkpoint drew of some prompts; those that are not kept any more are left out.

        Args:
            checkpoint_sha256: Tree digest of the checkpoint's folder.
            suite: Of the prompts.
            wanted: Their ids.

        Returns:
            Pictures by prompt id.
        """
        folder = pictures_folder(self.work_dir, checkpoint_sha256, suite, self.sampler)
        found: dict[str, DrawnPicture] = {}
        for start, end in ranges(len(suite.rows), self.shard_size):
            rows = suite.rows[start:end]
            if any(row.prompt_id in wanted for row in rows):
                drawn = read_shard(shard_path(folder, start, end), rows) or []
                found |= {one.row.prompt_id: one for one in drawn if one.row.prompt_id in wanted}
        return found
