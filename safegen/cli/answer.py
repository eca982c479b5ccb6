"""How a command answers: for a person, or as one JSON object; and what an error looks like."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Annotated, Any, ParamSpec

import typer

from safegen.errors import SafegenError

Parameters = ParamSpec("Parameters")

_EXIT_USAGE, _EXIT_UNEXPECTED, _EXIT_INTERRUPTED = 2, 3, 130
_COMMON_OPTIONS = {
    "json_output": Annotated[
        bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")
    ],
    "debug": Annotated[
        bool, typer.Option("--debug", help="Show vendors' logs and the traceback of an error.")
    ],
}


@dataclass(frozen=True)
class Answer:
    """What a command found or did.

    Attributes:
        document: For a program; what `--json` prints.
        text: For a person.
        exit_code: What the process ends with.
    """

    document: Mapping[str, Any]
    text: str
    exit_code: int = 0


@dataclass(frozen=True)
class OutputMode:
    """The two options that every command takes, read before anything else is parsed so that errors obey them."""

    as_json: bool
    debug: bool

    @classmethod
    def of(cls, words: list[str]) -> OutputMode:
        """Find the options among the words of a command line.

        >>> OutputMode.of(["detect", "--json", "--", "--debug"])
        OutputMode(as_json=True, debug=False)
        """
        options = words[: words.index("--")] if "--" in words else words
        return cls("--json" in options, "--debug" in options)


class InterruptedRunError(Exception):
    """Somebody pressed Ctrl-C; typer would swallow a KeyboardInterrupt."""


def answering(work: Callable[Parameters, Answer]) -> Callable[..., Answer]:
    """Add `--json` and `--debug` to a command, and keep whatever libraries print off standard output."""

    @functools.wraps(work)
    def run(*args: Any, json_output: bool = False, debug: bool = False, **kwargs: Any) -> Answer:
        del json_output, debug  # see OutputMode
        try:
            with redirect_stdout(sys.stderr):
                return work(*args, **kwargs)
        except KeyboardInterrupt as error:
            raise InterruptedRunError from error

    signature = inspect.signature(work, eval_str=True)
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in _COMMON_OPTIONS.items()
    ]
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *common])  # type: ignore[attr-defined]
    run.__annotations__ = {**inspect.get_annotations(work, eval_str=True), **_COMMON_OPTIONS}
    return run


def give(answer: Answer, mode: OutputMode) -> int:
    """Print an answer and return its exit code."""
    _print(json.dumps(answer.document) if mode.as_json else answer.text)
    return answer.exit_code


def give_error(error: Exception, mode: OutputMode) -> int:
    """Print an error as one line (with `--json` also as an object) and return its exit code."""
    if mode.debug:
        traceback.print_exception(error)
    kind, message, exit_code = _describe(error)
    print(f"safegen: {message}", file=sys.stderr, flush=True)
    if mode.as_json:
        _print(json.dumps({"error": {"kind": kind, "message": message}}))
    return exit_code


def _describe(error: Exception) -> tuple[str, str, int]:
    if isinstance(error, InterruptedRunError):
        message = "interrupted; the same command again goes on from where this one was"
        return "Interrupted", message, _EXIT_INTERRUPTED
    if isinstance(error, SafegenError):
        return type(error).__name__, _one_line(str(error)), error.exit_code
    # Typer has carried its own copy of click since 0.26; the usage errors of both can format themselves.
    if callable(message_of := getattr(error, "format_message", None)):
        context = getattr(error, "ctx", None)
        more = f"; see {context.command_path} --help" if context else ""
        message = _one_line(str(message_of())).replace("Value error, ", "").rstrip(".")
        return "UsageError", (message or "no command is given") + more, _EXIT_USAGE
    message = f"unexpected {type(error).__name__}: {_one_line(str(error))}; --debug shows where"
    return type(error).__name__, message, _EXIT_UNEXPECTED


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # such as `| head`; what is left must not complain either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(text: str) -> str:
    return " ".join(text.split())
