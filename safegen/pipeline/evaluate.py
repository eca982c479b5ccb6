"""Stage 5: base and candidate draw the same prompts with the same seeds, and are compared."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.bootstrap import Platform, code_version, open_clip_pair
from safegen.config import EvaluateSection
from safegen.diffusion.sampler import SamplerSettings
from safegen.domain.digests import digest_json, tree_digests
from safegen.domain.report import flat_metrics
from safegen.evaluation.evaluate import EvaluationResult, EvaluationSettings, evaluate
from safegen.evaluation.generate import EvaluatedCheckpoint
from safegen.evaluation.report_builder import Provenance
from safegen.evaluation.suite_report import Judgement
from safegen.pipeline.outcomes import Edited, Evaluated
from safegen.pipeline.suites import open_suites
from safegen.progress import ShowProgress, progress_bar

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def sampler_settings(section: EvaluateSection) -> SamplerSettings:
    """Return how pictures are drawn in this run."""
    return SamplerSettings(
        steps=section.steps,
        guidance=section.guidance,
        precision=section.precision,
        batch_size=section.batch_size,
    )


def run_evaluate(platform: Platform, edited: Edited) -> Evaluated:
    """Evaluate a candidate and record the evaluation as a run.

    Raises:
        EvaluationError: Something could not be drawn, scored or measured.
    """
    config, triplets = platform.config, edited.triplets
    result = _evaluate(platform, edited)
    metrics = dict(flat_metrics(result.report))
    with platform.tracker.start_run(
        experiment=f"safegen/{config.model}/evaluate",
        run_name=f"candidate {edited.checkpoint_digest[:12]}",
        tags={
            "stage": "evaluate",
            "checkpoint_digest": edited.checkpoint_digest,
            "base_digest": edited.base_digest,
            "report_digest": result.report_digest,
            "edit_run": edited.run_id,
        },
        description=f"Base and candidate `{edited.checkpoint_digest[:12]}` on the same prompts and seeds.",
    ) as run:
        run.log_params(config.evaluate.model_dump(exclude={"suites"}))
        run.log_dataset(triplets.dataset, triplets.digest, triplets.manifest_uri, "edited on")
        run.log_metrics(metrics)
        run.log_artifact(result.report_path)
        run.log_artifact(result.results_path)
        for sheet in result.sheets.values():
            run.log_artifact(sheet, "sheets")
        return Evaluated(
            report=result.report_path,
            report_digest=result.report_digest,
            sheets=result.sheets,
            metrics=metrics,
            run_id=run.id,
            run_url=run.url,
        )


def _evaluate(platform: Platform, edited: Edited) -> EvaluationResult:
    config = platform.config
    work = digest_json([edited.checkpoint_digest, config.evaluate.model_dump(mode="json")])[:16]
    with ExitStack() as bars:
        shown: dict[str, ShowProgress] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in shown:
                bars.close()
                shown[what] = bars.enter_context(progress_bar(what, "pictures"))
            shown[what](done, total)

        return evaluate(
            EvaluatedCheckpoint(edited.base_digest, lambda: _load(platform, platform.base_checkpoint)),
            EvaluatedCheckpoint(edited.checkpoint_digest, lambda: _load(platform, edited.checkpoint)),
            open_suites(platform.config),
            platform.detector,
            open_clip_pair(),
            EvaluationSettings(
                judgement=Judgement(
                    platform.unsafe_labels,
                    config.detector.threshold,
                    subject_threshold=config.detector.threshold,
                    bootstrap_seed=config.seed,
                ),
                sampler=sampler_settings(config.evaluate),
                shard_size=config.evaluate.shard_size,
                unsafe_pictures=config.evaluate.unsafe_pictures,
            ),
            provenance=Provenance(
                model=config.model.lower(),
                checkpoint_sha256=edited.checkpoint_digest,
                base_sha256=edited.base_digest,
                datasets={edited.triplets.dataset: edited.triplets.digest},
                seeds={"edit": config.seed, "bootstrap": config.seed},
                code_version=code_version(),
                checkpoint_files=tree_digests(edited.checkpoint),
                base_files=tree_digests(platform.base_checkpoint),
            ),
            work_dir=platform.workspace / "pictures",
            out_dir=platform.workspace / "evaluations" / work,
            now=datetime.now(UTC),
            progress=progress,
        )


def _load(platform: Platform, folder: Path) -> StableDiffusionPipeline:
    return platform.load(folder, weights=platform.config.evaluate.precision)
