"""The flows that run unattended, as `prefect.yaml` deploys them: parameters are JSON, the end is a state to read.

Each is the flow of the same stages in `flows.protect`, run in its own flow run, so that its tasks, its pause and its
heartbeats belong to the run that a person sees.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.states import Completed, State

from flows.event_order import tell_first_state
from flows.protect import promote_evaluated, protect, protect_until
from flows.stage import StageEvent, observed_by
from safegen.config import RunConfig, load_config
from safegen.pipeline.summary import Summary

CANDIDATE_REGISTERED = "safegen.candidate.registered"
CANDIDATE_BLOCKED = "safegen.candidate.blocked"
RELEASE_PROMOTED = "safegen.release.promoted"


@flow(name="retrain")
def retrain(config: str, seed: int | None = None) -> State[Any]:
    """Run the whole pipeline; ends as "Promoted" or "Blocked", both of which are completed runs.

    Args:
        config: The run's TOML file.
        seed: Another seed than the file's, for another candidate.
    """
    return _ended(_told(config, seed), protect.fn)


@flow(name="ingest")
def ingest(config: str) -> State[Any]:
    """Take in what is new.

    Args:
        config: The run's TOML file.
    """
    return _until("ingest", _told(config, None))


@flow(name="edit")
def edit(config: str, seed: int | None = None) -> State[Any]:
    """Make a candidate, and tell that it is registered.

    Args:
        config: The run's TOML file.
        seed: Another seed than the file's, for another candidate.
    """
    run = _told(config, seed)
    ended = _until("edit", run)
    _emit(CANDIDATE_REGISTERED, run, {"config": config, "seed": run.seed})
    return ended


@flow(name="evaluate")
def evaluate(config: str, seed: int | None = None) -> State[Any]:
    """Compare the candidate with its base.

    Args:
        config: The run's TOML file.
        seed: As for the candidate's edit.
    """
    return _until("evaluate", _told(config, seed))


@flow(name="promote")
def promote(config: str, seed: int | None = None) -> State[Any]:
    """Gate what was evaluated and promote what passes; edits and evaluates nothing.

    Args:
        config: The run's TOML file.
        seed: As for the candidate's edit.
    """
    return _ended(_told(config, seed), promote_evaluated.fn)


@flow(name="benchmark")
def benchmark(config: str) -> State[Any]:
    """Measure every defence against every suite and attack; finished cells are not measured again.

    Args:
        config: The benchmark's TOML file.
    """
    from flows.benchmark import benchmark as measure
    from safegen.pipeline.benchmark_config import load_benchmark_config

    asked = load_benchmark_config(Path(config))
    summary = measure.fn(asked, command=f"safegen benchmark --config {config}")
    return Completed(message=f"{summary.cells} cells of {len(summary.defences)} defences: {summary.page}")


def _told(config: str, seed: int | None) -> RunConfig:
    logging.getLogger("safegen").setLevel(logging.INFO)
    tell_first_state()
    run = load_config(Path(config))
    return run if seed is None else run.model_copy(update={"seed": seed})


def _ended(run: RunConfig, pipeline: Any) -> State[Any]:
    with observed_by(_log_stage):
        summary: Summary = pipeline(run)
    if summary.release is None:
        failed = [check["reason"] for check in summary.decision["checks"] if not check["passed"]]
        reason = failed[0] if failed else summary.note
        _emit(CANDIDATE_BLOCKED, run, {"reason": reason, "report": summary.where["report"]})
        return Completed(name="Blocked", message=f"{run.model} is not released: {reason}")
    _emit(RELEASE_PROMOTED, run, {"version": summary.release.version, "uri": summary.release.uri})
    message = f"{run.model}@{run.promote.channel} is version {summary.release.version}"
    return Completed(name="Promoted", message=message)


def _until(stage: Literal["ingest", "edit", "evaluate"], run: RunConfig) -> State[Any]:
    with observed_by(_log_stage):
        summary = protect_until.fn(run, stage)
    made = [record.name for record in summary.stages if not record.reused]
    return Completed(message=f"made: {', '.join(made)}" if made else "nothing has changed")


def _emit(event: str, run: RunConfig, payload: dict[str, Any]) -> None:
    resource = {"prefect.resource.id": f"safegen.model.{run.model}", "prefect.resource.name": run.model}
    emit_event(event=event, resource=resource, payload=payload)


def _log_stage(event: StageEvent) -> None:
    get_run_logger().info("%s: %s after %.1f s", event.name, event.state, event.seconds)
