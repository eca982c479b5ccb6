"""Progress bars on standard error: rates and remaining time in a terminal, a line now and then when piped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tqdm import tqdm

_PIPED_INTERVAL_S = 15.0


class ShowProgress(Protocol):
    """Called with the units done and their total, None where it is not known yet."""

    def __call__(self, done: int, total: int | None) -> None:
        """Show it."""
        ...


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[ShowProgress]:
    """Show a bar while the block runs.

    Args:
        title: What is being done.
        unit: What is counted, such as "images".

    Yields:
        A function to call with the units done and their total, None where it is not known yet.
    """
    interval = 0.1 if sys.stderr.isatty() else _PIPED_INTERVAL_S
    with tqdm(desc=f"  {title}", unit=f" {unit}", ncols=79, mininterval=interval, leave=False) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
