"""Progress on standard error: a bar with rate and remaining time in a terminal, a line now and then in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from tqdm import tqdm

_COLUMNS = 79
_TERMINAL_INTERVAL_S = 0.1
_PIPED_INTERVAL_S = 15.0


class ShowProgress(Protocol):
    """Called with the units done and their total, None where it is not known yet."""

    def __call__(self, done: int, total: int | None) -> None:
        """Show it."""
        ...


@contextmanager
def progress_bar(
    title: str, unit: str, *, piped_interval_s: float = _PIPED_INTERVAL_S
) -> Iterator[ShowProgress]:
    """Show progress while the block runs; what is over before the first interval in a pipe leaves no line.

    Args:
        title: What is being done.
        unit: What is counted, such as "images".
        piped_interval_s: Least time between two lines where standard error is no terminal.

    Yields:
        A function to call with the units done and their total, None where it is not known yet.
    """
    if not sys.stderr.isatty():
        yield _PipedProgress(title, unit, sys.stderr, piped_interval_s)
        return
    with tqdm(
        desc=f"  {title}", unit=f" {unit}", ncols=_COLUMNS, mininterval=_TERMINAL_INTERVAL_S, leave=False
    ) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


class _PipedProgress:
    """Writes whole lines, so that a log stays readable."""

    def __init__(self, title: str, unit: str, stream: TextIO, interval_s: float) -> None:
        self._title, self._unit, self._stream, self._interval_s = title, unit, stream, interval_s
        self._started = self._shown = time.monotonic()

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._shown < self._interval_s:
            return
        self._shown = now
        self._stream.write(self._line(done, total, now - self._started)[:_COLUMNS] + "\n")
        self._stream.flush()

    def _line(self, done: int, total: int | None, elapsed_s: float) -> str:
        elapsed = tqdm.format_interval(elapsed_s)
        if not total or not done:
            return f"  {self._title}: {done} {self._unit}, {elapsed}"
        left = tqdm.format_interval(elapsed_s * (total - done) / done)
        return f"  {self._title}: {done} of {total} {self._unit} ({done / total:.0%}), {elapsed}, {left} left"
