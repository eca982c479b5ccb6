"""The command line: `safegen COMMAND …`, also `python -m safegen COMMAND …`.

    app.py            assembles the commands
    answer.py         how a command answers: text or one JSON object, and the exit code
    environment.py    the only module that changes the process's environment
    options.py        options that several commands share
    …_command(s).py   one module per group of commands, each with a `commands` that app.py adds

Exit codes: 0 done, 1 blocked, 2 bad usage or configuration, 3 something underneath failed, 130 interrupted. Heavy
libraries are imported inside the commands that use them.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: The words after `safegen`; None takes those of this process.
    """
    from safegen.cli.app import run_command_line

    return run_command_line(arguments)
