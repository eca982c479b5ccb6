"""Assembles the command line: one module per group of commands, in the order in which help lists them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from safegen.cli import (
    approve_command,
    backup_commands,
    benchmark_command,
    deploy_command,
    gate_command,
    keys_command,
    look_commands,
    pipeline_commands,
    prompts_command,
    release_commands,
    report_command,
    stack_commands,
    verify_command,
)
from safegen.cli.answer import Answer, OutputMode, give, give_error

app = typer.Typer(
    name="safegen",
    help="Make text-to-image models unable to draw a restricted concept, and let none out without proof.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for group in (
    pipeline_commands,
    gate_command,
    approve_command,
    release_commands,
    report_command,
    verify_command,
    look_commands,
    prompts_command,
    deploy_command,
    benchmark_command,
):
    app.add_typer(group.commands)
app.add_typer(keys_command.commands, name="keys")
app.add_typer(stack_commands.commands, name="stack")
app.add_typer(backup_commands.commands, name="backup")


def run_command_line(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: The words after `safegen`; None takes those of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    mode = OutputMode.of(words)
    try:
        answer = app(args=words, standalone_mode=False)
    except Exception as error:  # noqa: BLE001  (every error becomes one line and an exit code)
        return give_error(error, mode)
    return give(answer, mode) if isinstance(answer, Answer) else int(answer or 0)
