"""Commands that run the pipeline or a part of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from safegen.cli.answer import Answer, answering
from safegen.cli.options import MINIATURE_RUN, ConfigOption
from safegen.domain.gate_files import read_text

if TYPE_CHECKING:
    from safegen.config import RunConfig
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
def promote(
    config: ConfigOption = MINIATURE_RUN,
    *,
    approval: Annotated[
        Path | None,
        typer.Option("--approval", help="What `safegen approve` printed, where one is asked for."),
    ] = None,
) -> Answer:
    """Gate the candidate that was evaluated under this configuration, and promote it if it passes.

    Makes nothing: where nothing was evaluated it exits 2. Exits 0 if promoted, 1 if blocked or not yet approved.

    Example: safegen promote --config configs/miniature.toml
    """
    signed = None if approval is None else read_text(approval)
    run = _prepared(config)
    from flows.approval import approved_by
    from flows.protect import promote_evaluated

    with approved_by(signed):
        return _whole(promote_evaluated, run)


@commands.command()
@answering
def reconcile(config: ConfigOption = MINIATURE_RUN) -> Answer:
    """Make the registry's champion the release that the channel points to, where a killed promotion left them apart.

    Example: safegen reconcile --config configs/miniature.toml
    """
    run = _prepared(config)
    from dataclasses import asdict

    from safegen.bootstrap import open_platform
    from safegen.pipeline.reconcile import run_reconcile

    with open_platform(run) as platform:
        found = run_reconcile(platform)
    what = f"{run.model}@{run.promote.channel} is version {found.version}, registry version {found.registry_version}"
    how = f"; the champion was {found.before or 'nothing'} before" if found.changed else ", as before"
    return Answer({**asdict(found), "changed": found.changed}, what + how)


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
    from safegen.api import prepared_run

    return prepared_run(config, defence=defence, debug="--debug" in sys.argv)
