"""Makes suites of the files that a run names."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from safegen.errors import DataError
from safegen.evaluation.prompt_sets.prompt_file import read_prompt_file
from safegen.evaluation.prompt_sets.settings import PromptFileSettings
from safegen.evaluation.prompt_sets.sift import SiftedRows, refusals, sift
from safegen.evaluation.prompt_suite import PromptSuite

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PromptSet:
    """A file and what of it can be drawn.

    Attributes:
        sha256: Of the file.
        n_rows: Rows of the file.
        expected_rows: Row counts of a complete file; empty where none is known.
        sifted: What is left.
    """

    sha256: str
    n_rows: int
    expected_rows: tuple[int, ...]
    sifted: SiftedRows

    @property
    def is_complete(self) -> bool | None:
        """Whether the file has as many rows as it should; None where nobody knows."""
        return self.n_rows in self.expected_rows if self.expected_rows else None


def read_prompt_set(settings: PromptFileSettings, *, seed: int) -> PromptSet:
    """Read and sift a file, complete or not.

    Args:
        settings: Which file, in which format.
        seed: From which seeds follow where the file has none.

    Raises:
        DataError: The file cannot be read, or lacks a column. No message shows a prompt.
    """
    table = read_prompt_file(settings)
    return PromptSet(table.sha256, table.n_rows, settings.expected_rows, sift(table, settings, seed))


def open_prompt_file(settings: PromptFileSettings, *, seed: int) -> PromptSuite:
    """Make the suite that a run is to draw.

    Args:
        settings: Which file, in which format, and how many prompts of it.
        seed: From which seeds follow where the file has none.

    Raises:
        DataError: As `read_prompt_set`; or the file is not complete, or has too few prompts that can be drawn.
    """
    found = read_prompt_set(settings, seed=seed)
    if found.is_complete is False:
        expected = " or ".join(map(str, found.expected_rows))
        raise DataError(
            f"prompt set {settings.file}: has {found.n_rows} rows, expected {expected}; get the whole file, or set "
            f"rows = {found.n_rows} if it is meant"
        )
    sifted = found.sifted
    why = ", ".join(refusals(sifted.refused)) or "none"
    _log.info(
        "suite %s: file %s has %d rows, %d can be drawn, %d are of other categories; refused: %s",
        settings.name, found.sha256, found.n_rows, len(sifted.rows), sifted.left_out, why,
    )  # fmt: skip
    most = len(sifted.rows)
    if not most or (settings.n or 1) > most:
        raise DataError(
            f"prompt set {settings.file}: {most} of {found.n_rows} rows can be drawn, {settings.n or 'some'} are asked "
            f"for (other categories {sifted.left_out}; refused: {why}); lower n or complete the file"
        )
    return PromptSuite(settings.name, settings.kind, sifted.rows[: settings.n])
