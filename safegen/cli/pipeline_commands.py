"""Commands that run the pipeline or a part of it."""

from __future__ import annotations

import sys

import typer

from safegen.cli.answer import Answer, answering
from safegen.cli.options import MINIATURE_RUN, ConfigOption

commands = typer.Typer()


@commands.command()
@answering
def retrain(config: ConfigOption = MINIATURE_RUN) -> Answer:
    """Ingest, validate, edit, evaluate, gate, and promote what passes.

    Example: safegen retrain --config configs/miniature.toml
    """
    from safegen.cli.environment import prepare_run
    from safegen.config import load_config

    run = load_config(config)
    prepare_run(run, debug="--debug" in sys.argv)
    from flows.protect import protect
    from flows.stage import observed_by
    from safegen.cli.retrain_text import show_stage, summary_text

    with observed_by(show_stage):
        summary = protect(run)
    return Answer(summary.model_dump(mode="json"), summary_text(summary), summary.exit_code)
