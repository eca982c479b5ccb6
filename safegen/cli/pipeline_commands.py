"""Commands that run the pipeline or a part of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from safegen.cli.answer import Answer, answering
from safegen.cli.options import MINIATURE_RUN, ConfigOption
from safegen.config import RunConfig, load_config

if TYPE_CHECKING:
    from safegen.pipeline.summary import Summary

DefenceOption = Annotated[
    str | None,
    typer.Option(
        "--defence",
        help="Edit by this weight edit instead of the configuration's: safegen, esd, esd-u, uce, adv-unlearn.",
    ),
]

commands = typer.Typer()


@commands.command()
@answering
def retrain(config: ConfigOption = MINIATURE_RUN) -> Answer:
    """Ingest, validate, edit, evaluate, gate, and promote what passes.

    What an earlier run left is re-used where nothing that it depends on has changed. Exits 0 if promoted, 1 if blocked.

    Example: safegen retrain --config configs/miniature.toml
    """
    run = _prepared(config)
    from flows.protect import protect

    return _whole(protect, run)


@commands.command()
@answering
def ingest(config: ConfigOption = MINIATURE_RUN) -> Answer:
    """Take in the images of the sources; what is refused goes to quarantine with a reason.

    Example: safegen ingest --config configs/miniature.toml
    """
    return _until("ingest", config)


@commands.command()
@answering
def edit(config: ConfigOption = MINIATURE_RUN, defence: DefenceOption = None) -> Answer:
    """Edit the base model; ingests, validates and makes triplets first where that has not been done.

    Example: safegen edit --config configs/miniature.toml --defence esd
    """
    return _until("edit", config, defence)


@commands.command()
@answering
def evaluate(config: ConfigOption = MINIATURE_RUN) -> Answer:
    """Compare the candidate with its base and write report.json; makes the candidate first where there is none.

    Example: safegen evaluate --config configs/miniature.toml
    """
    return _until("evaluate", config)


@commands.command()
@answering
def promote(config: ConfigOption = MINIATURE_RUN) -> Answer:
    """Gate the candidate that was evaluated under this configuration, and promote it if it passes.

    Makes nothing: where nothing was evaluated it exits 2. Exits 0 if promoted, 1 if blocked.

    Example: safegen promote --config configs/miniature.toml
    """
    run = _prepared(config)
    from flows.protect import promote_evaluated

    return _whole(promote_evaluated, run)


def _whole(flow: Callable[[RunConfig], Summary], run: RunConfig) -> Answer:
    from flows.stage import observed_by
    from safegen.cli.retrain_text import show_stage, summary_text

    with observed_by(show_stage):
        summary = flow(run)
    return Answer(summary.model_dump(mode="json"), summary_text(summary), summary.exit_code)


def _until(stage: Literal["ingest", "edit", "evaluate"], config: Path, defence: str | None = None) -> Answer:
    run = _prepared(config, defence)
    from flows.protect import protect_until
    from flows.stage import observed_by
    from safegen.cli.retrain_text import partial_text, show_stage

    with observed_by(show_stage):
        summary = protect_until(run, stage)
    return Answer(summary.model_dump(mode="json"), partial_text(summary))


def _prepared(config: Path, defence: str | None = None) -> RunConfig:
    """Read the configuration, refuse what can be refused at once, and set the process up for the flows."""
    from safegen.cli.environment import prepare_run, show_own_notes
    from safegen.pipeline.defences import with_defence
    from safegen.pipeline.preflight import check_inputs

    run = load_config(config)
    if defence is not None:
        run = with_defence(run, defence)
    check_inputs(run)  # the flow does so too, but Prefect takes seconds to begin
    prepare_run(run, debug="--debug" in sys.argv)
    show_own_notes()
    return run
