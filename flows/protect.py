"""The main job: from raw images to a released checkpoint that cannot draw the restricted concept.

    ingest -> validate -> triplets -> edit -> evaluate -> gate -> report -> promote

Every stage is a task whose result is kept under a key made of content digests, configuration and code version
(`flows.stage`), so a run re-uses what has not changed and a killed run goes on where it was. The flow runs with no
Prefect server (it then brings up an ephemeral one) as well as under a deployment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prefect import flow

from flows.presentation import show_decision, show_ingest, show_page, show_release, show_validation
from flows.stage import Stages
from safegen.bootstrap import Platform, open_platform, processes
from safegen.config import RunConfig
from safegen.domain.digests import tree_digest
from safegen.pipeline import edit, evaluate, gate, ingest, page, promote, triplets, validate
from safegen.pipeline.defences import edit_inputs
from safegen.pipeline.outcomes import (
    Decided,
    Edited,
    Evaluated,
    Ingested,
    Page,
    Promoted,
    Triplets,
    Validated,
)
from safegen.pipeline.preflight import check_inputs
from safegen.pipeline.suites import suite_digests
from safegen.pipeline.summary import PartialSummary, Summary


@flow(name="protect", validate_parameters=False)
def protect(config: RunConfig) -> Summary:
    """Ingest, validate, edit, evaluate, gate and, if it passes, promote.

    Args:
        config: The run.

    Returns:
        What happened, as `safegen retrain --json` prints it.
    """
    check_inputs(config)
    with open_platform(config) as platform:
        stages = Stages(platform)
        ingested = _ingest(stages)
        validated = _validate(stages, ingested)
        made = _triplets(stages, validated)
        edited = _edit(stages, made)
        evaluated = _evaluate(stages, edited)
        decided = _gate(stages, edited, evaluated)
        shown = _report(stages, edited, evaluated, decided)
        released = _promote(stages, edited, evaluated, decided)
        return stages.summary(edited, evaluated, decided, shown, released)


@flow(name="protect-until", validate_parameters=False)
def protect_until(config: RunConfig, until: Literal["ingest", "edit", "evaluate"]) -> PartialSummary:
    """Run the first stages of `protect`, whose kept results are the same.

    Args:
        config: The run.
        until: The last stage to run.

    Returns:
        What that stage handed over.
    """
    check_inputs(config)
    with open_platform(config) as platform:
        stages = Stages(platform)
        ingested = _ingest(stages)
        if until == "ingest":
            return stages.partial_summary(ingested)
        edited = _edit(stages, _triplets(stages, _validate(stages, ingested)))
        if until == "edit":
            return stages.partial_summary(edited)
        return stages.partial_summary(_evaluate(stages, edited))


@flow(name="promote", validate_parameters=False)
def promote_evaluated(config: RunConfig) -> Summary:
    """Gate the candidate that has been evaluated under this configuration and, if it passes, promote it.

    Nothing is edited or evaluated here: promoting takes seconds or is refused.

    Args:
        config: The run.

    Returns:
        As `protect`.

    Raises:
        DataError: Nothing has been evaluated under this configuration.
    """
    check_inputs(config)
    with open_platform(config) as platform:
        stages = Stages(platform, not_made_here=("ingest", "validate", "triplets", "edit", "evaluate"))
        edited = _edit(stages, _triplets(stages, _validate(stages, _ingest(stages))))
        evaluated = _evaluate(stages, edited)
        decided = _gate(stages, edited, evaluated)
        shown = _report(stages, edited, evaluated, decided)
        released = _promote(stages, edited, evaluated, decided)
        return stages.summary(edited, evaluated, decided, shown, released)


def _ingest(stages: Stages) -> Ingested:
    platform = stages.platform
    depends_on = {
        "sources": ingest.sources_fingerprint(platform),
        "settings": platform.config.ingest,
        "store": platform.trainer_store.uri,
    }
    ingested = stages.run("ingest", Ingested, depends_on, lambda: ingest.run_ingest(platform))
    show_ingest(ingested)
    return ingested


def _validate(stages: Stages, ingested: Ingested) -> Validated:
    config = stages.platform.config
    depends_on = {
        "dataset": ingested.digest,
        "store": stages.platform.trainer_store.uri,
        "detector": stages.platform.detector.identity,
        "judged": config.detector,
        "near": config.ingest.max_near_bits,
        "settings": config.validation,
    }
    validated = stages.run(
        "validate", Validated, depends_on, lambda: validate.run_validate(stages.platform, ingested)
    )
    show_validation(validated)
    return validated


def _triplets(stages: Stages, validated: Validated) -> Triplets:
    config = stages.platform.config
    depends_on = {
        "dataset": validated.digest,
        "store": stages.platform.trainer_store.uri,
        "detector": stages.platform.detector.identity,
        "judged": config.detector,
        "base": tree_digest(stages.platform.base_checkpoint),
        "seed": config.seed,
        "settings": config.triplets,
    }
    return stages.run(
        "triplets", Triplets, depends_on, lambda: triplets.run_triplets(stages.platform, validated)
    )


def _edit(stages: Stages, made: Triplets) -> Edited:
    config = stages.platform.config
    depends_on = {
        "model": config.model,
        "triplets": made.digest,
        "base": tree_digest(stages.platform.base_checkpoint),
        "seed": config.seed,
        **edit_inputs(config),
        "processes": processes(),
        "tracking": config.tracking,
    }
    return stages.run("edit", Edited, depends_on, lambda: edit.run_edit(stages.platform, made))


def _evaluate(stages: Stages, edited: Edited) -> Evaluated:
    config = stages.platform.config
    depends_on = {
        "model": config.model,
        "candidate": edited.checkpoint_digest,
        "base": edited.base_digest,
        "seed": config.seed,
        "detector": stages.platform.detector.identity,
        "judged": config.detector,
        "settings": config.evaluate,
        "prompts": suite_digests(config),
        "tracking": config.tracking,
    }
    return stages.run(
        "evaluate", Evaluated, depends_on, lambda: evaluate.run_evaluate(stages.platform, edited)
    )


def _gate(stages: Stages, edited: Edited, evaluated: Evaluated) -> Decided:
    champion: Path | None = gate.champion_report(stages.platform, edited.checkpoint_digest)
    depends_on = {"evidence": gate.gate_key(stages.platform, evaluated, champion)}
    decided = stages.run(
        "gate", Decided, depends_on, lambda: gate.run_gate(stages.platform, edited, evaluated, champion)
    )
    show_decision(decided, evaluated)
    return decided


def _report(stages: Stages, edited: Edited, evaluated: Evaluated, decided: Decided) -> Page:
    """Make the page before anything is promoted, so that no release is without one."""
    platform = stages.platform
    champion: Path | None = gate.champion_report(platform, edited.checkpoint_digest)
    depends_on = {"shown": page.page_key(platform, evaluated, decided)}
    shown = stages.run(
        "report", Page, depends_on, lambda: page.run_page(platform, edited, evaluated, decided, champion)
    )
    show_page(shown)
    return shown


def _promote(stages: Stages, edited: Edited, evaluated: Evaluated, decided: Decided) -> Promoted | None:
    """Promote a candidate that passed; one that was blocked is registered and goes nowhere."""
    platform: Platform = stages.platform
    if not decided.passed:
        promote.register(platform, edited, evaluated, decided)
        return None
    released = stages.repeat("promote", lambda: promote.run_promote(platform, edited, evaluated, decided))
    show_release(released)
    return released
