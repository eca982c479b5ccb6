"""Stage 5: base and candidate draw the same prompts with the same seeds, and are compared."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.bootstrap import Platform, code_version, open_quality_nets
from safegen.config import EvaluateSection, RunConfig
from safegen.diffusion.sampler import SamplerSettings
from safegen.domain.digests import digest_json, tree_digests
from safegen.domain.report import flat_metrics
from safegen.evaluation.evaluate import EvaluationResult, EvaluationSettings, evaluate
from safegen.evaluation.generate import EvaluatedCheckpoint
from safegen.evaluation.report_builder import Provenance
from safegen.evaluation.suite_report import Judgement
from safegen.pipeline.outcomes import Edited, Evaluated
from safegen.pipeline.run_texts import edit_label, evaluation_description
from safegen.pipeline.suites import open_suites
from safegen.ports import TrackedRun
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


def pictures_dir(config: RunConfig) -> Path:
    """Return where pictures of a workspace are kept."""
    return config.workspace.absolute() / "pictures"


def run_evaluate(platform: Platform, edited: Edited) -> Evaluated:
    """Evaluate a candidate and record the evaluation as a run.

    Raises:
        EvaluationError: Something could not be drawn, scored or measured.
    """
    config, triplets = platform.config, edited.triplets
    result = _evaluate(platform, edited)
    metrics = dict(flat_metrics(result.report))
    with evaluation_run(platform, edited, result.report_digest) as run:
        run.log_params(_params(config))
        run.log_dataset(triplets.dataset, triplets.digest, triplets.manifest_uri, "edited on")
        run.measure_model(edited.model_id)
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


def evaluation_run(
    platform: Platform,
    edited: Edited,
    report_digest: str,
    *,
    resume_run_id: str | None = None,
    more_tags: Mapping[str, str] | None = None,
) -> TrackedRun:
    """Begin the run of an evaluation, or go on with it.

    Args:
        platform: Of the run.
        edited: The candidate.
        report_digest: Of its report.
        resume_run_id: The run to go on with.
        more_tags: What is known only later.
    """
    return platform.tracker.start_run(
        experiment=f"safegen/{platform.config.model}/evaluate",
        run_name=f"{edit_label(platform.config)}, {edited.checkpoint_digest[:8]}",
        tags={
            "stage": "evaluate",
            "checkpoint_digest": edited.checkpoint_digest,
            "base_digest": edited.base_digest,
            "report_digest": report_digest,
            "edit_run": edited.run_id,
            **(more_tags or {}),
        },
        description=evaluation_description(edited),
        resume_run_id=resume_run_id,
    )


def _params(config: RunConfig) -> dict[str, str | float | int | bool]:
    """Return the settings of evaluation and edit, so that a comparison of runs shows what differs."""
    section = config.evaluate
    plain = section.model_dump(exclude={"suites", "features", "clip", "lpips"})
    edit = {f"edit/{name}": value for name, value in config.edit.model_dump().items()}
    return {
        **plain,
        "features": section.features.kind,
        "clip": section.clip.source,
        **edit,
        "edit/seed": config.seed,
    }


def _evaluate(platform: Platform, edited: Edited) -> EvaluationResult:
    config = platform.config
    suites = open_suites(config)
    settings = config.evaluate.model_dump(mode="json")
    work = digest_json([edited.checkpoint_digest, settings, [suite.sha256 for suite in suites]])[:16]
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
            suites,
            platform.detector,
            open_quality_nets(config.evaluate, platform.workspace / "weights"),
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
            work_dir=pictures_dir(config),
            out_dir=platform.workspace / "evaluations" / work,
            now=datetime.now(UTC),
            progress=progress,
        )


def _load(platform: Platform, folder: Path) -> StableDiffusionPipeline:
    return platform.load(folder, weights=platform.config.evaluate.precision)
