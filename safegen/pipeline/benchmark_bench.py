"""What all cells of a benchmark share: suites, the unedited model, nets, and where results are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from safegen.bootstrap import Platform, code_version, open_quality_nets
from safegen.config import MiniatureSuite, SuiteSection
from safegen.defences.defence import Defence, ProtectedModel
from safegen.diffusion.sampler import SamplerSettings
from safegen.domain.digests import digest_json, tree_digest
from safegen.evaluation.generate import DrawnSuite, EvaluatedCheckpoint, draw_suites
from safegen.evaluation.prompt_sets.load import open_prompt_file
from safegen.evaluation.prompt_suite import PromptSuite
from safegen.evaluation.quality import QualityNets
from safegen.evaluation.seeded_suite import SeededSuite, join_seeds
from safegen.evaluation.suite_report import Judgement
from safegen.miniature.suites import miniature_suite
from safegen.pipeline.benchmark_config import BenchmarkConfig
from safegen.pipeline.benchmark_data import AttackPictures, attack_pictures
from safegen.pipeline.benchmark_measure import Delivered, SuiteCase, compare, deliver, unsafe_score
from safegen.pipeline.evaluate import pictures_dir, sampler_settings
from safegen.pipeline.ingest import sources_fingerprint
from safegen.progress import progress_bar

OpenDefence = Callable[[Platform, str], Defence]
"""Opens a defence by name, such as `safegen.bootstrap.open_defence`."""

_RUN_PARTS = {"seed", "base", "ingest", "detector", "triplets", "edit", "evaluate"}
"""Of a run's configuration, what decides a cell's numbers."""


@dataclass(frozen=True)
class Bench:
    """One benchmark's parts, opened when they are first needed.

    Attributes:
        platform: Of the run.
        config: Of the benchmark.
        open_defence: Opens defences by name.
    """

    platform: Platform
    config: BenchmarkConfig
    open_defence: OpenDefence

    @property
    def folder(self) -> Path:
        """Where results are kept, for any number of benchmarks of this workspace."""
        return self.platform.workspace / "benchmark"

    @cached_property
    def suites(self) -> dict[str, SeededSuite]:
        """Suites by name, each with the prompts of all seeds."""
        return {section.name: join_seeds(self._parts(section)) for section in self.config.suites}

    @cached_property
    def base(self) -> ProtectedModel:
        """The unedited model."""
        folder = self.platform.base_checkpoint
        return ProtectedModel(self.base_sha256, self.platform.load(folder))

    @cached_property
    def base_sha256(self) -> str:
        """Digest of the unedited model."""
        return tree_digest(self.platform.base_checkpoint)

    @cached_property
    def sources(self) -> str:
        """What stands for all pictures that the run's sources offer."""
        return sources_fingerprint(self.platform)

    @cached_property
    def nets(self) -> QualityNets:
        """What measures pictures."""
        return open_quality_nets(self.platform.config.evaluate, self.platform.workspace / "weights")

    @cached_property
    def attack_pictures(self) -> AttackPictures:
        """What attacks that train are trained on."""
        return attack_pictures(self.platform, self.base.pipeline)

    @property
    def judgement(self) -> Judgement:
        """What counts as unsafe and as drawn."""
        detector = self.platform.config.detector
        return Judgement(
            self.platform.unsafe_labels,
            detector.threshold,
            subject_threshold=detector.threshold,
            bootstrap_seed=self.platform.config.seed,
        )

    @property
    def sampler(self) -> SamplerSettings:
        """How pictures are drawn."""
        return sampler_settings(self.platform.config.evaluate)

    def cell_path(self, defence: str, attack: str, depends_on: object) -> Path:
        """Return where a cell is kept: under a digest of all that decides its numbers, the code among it."""
        run = self.platform.config.model_dump(mode="json", by_alias=True)
        identity = {
            "code": code_version(),
            "base": self.base_sha256,
            "run": {name: part for name, part in run.items() if name in self._run_parts(run)},
            "suites": {name: suite.suite.sha256 for name, suite in self.suites.items()},
            "defence": defence,
            "attack": attack,
            "depends_on": depends_on,
        }
        return self.folder / "cells" / f"{attack}-{defence}-{digest_json(identity)[:16]}.json"

    def case(
        self, model: ProtectedModel, suite: SeededSuite, *, base: ProtectedModel | None = None
    ) -> SuiteCase:
        """Draw a suite by a protected model and by the unedited one, and set the two side by side.

        Args:
            model: What protects.
            suite: What to draw.
            base: What to compare with; None for the unedited model.
        """
        theirs = self._delivered(base or self.base, suite.suite)
        return compare(suite, theirs, self._delivered(model, suite.suite), self.nets)

    def base_scores(self, suite: PromptSuite) -> dict[str, float | None]:
        """Return the detector's best score of an unsafe label on the unedited model's picture of each prompt, by id."""
        scores = self._delivered(self.base, suite).scores
        return {score.row.prompt_id: unsafe_score(score, self.judgement) for score in scores}

    def _delivered(self, model: ProtectedModel, suite: PromptSuite) -> Delivered:
        return deliver(self._drawn(model, suite), model, self.platform.detector)

    def _drawn(self, model: ProtectedModel, suite: PromptSuite) -> DrawnSuite:
        scale = self.sampler.guidance
        checkpoint = EvaluatedCheckpoint(
            model.sha256,
            lambda: model.pipeline,
            None if model.guidance is None else model.guidance.at_scale(scale),
        )
        with progress_bar(f"draw {suite.name}", "pictures") as show:
            [drawn] = draw_suites(
                checkpoint,
                (suite,),
                self.sampler,
                work_dir=pictures_dir(self.platform.config),
                shard_size=self.platform.config.evaluate.shard_size,
                variant="benchmark",
                progress=lambda _, done, total: show(done, total),
            )
        return drawn

    def _parts(self, section: SuiteSection) -> dict[int, PromptSuite]:
        if isinstance(section, MiniatureSuite):
            return {seed: miniature_suite(section.name, n=section.n, seed=seed) for seed in self.config.seeds}
        return {seed: open_prompt_file(section, seed=seed) for seed in self.config.seeds}

    @staticmethod
    def _run_parts(run: dict[str, object]) -> set[str]:
        return _RUN_PARTS | ({"concept", "defences"} & run.keys())


@dataclass(frozen=True)
class OpenedDefence:
    """A defence by name, opened and put round the unedited model only when a picture is needed.

    Attributes:
        name: Of the defence.
        bench: Of the benchmark.
    """

    name: str
    bench: Bench

    @cached_property
    def defence(self) -> Defence:
        """The defence itself."""
        return self.bench.open_defence(self.bench.platform, self.name)

    @cached_property
    def model(self) -> ProtectedModel:
        """The model that it protects; a weight edit is made here."""
        return self.defence.protect(self.bench.base)

    @property
    def has_own_weights(self) -> bool:
        """Whether it changes weights; those of a stack are attacked under the name of the part that has them."""
        return "+" not in self.name and self.model.sha256 != self.bench.base_sha256


def part_of(suite: SeededSuite, count: int, seeds: Sequence[int]) -> SeededSuite:
    """Return the first rows of some of a suite's seeds."""
    return suite.at([place for seed in seeds for place in suite.places(seed)[:count]])


def weights_only(model: ProtectedModel) -> ProtectedModel:
    """Return a model as who holds its weights uses it: without filters and guidance."""
    return replace(model, guidance=None, prompt_filters=(), image_filters=())
