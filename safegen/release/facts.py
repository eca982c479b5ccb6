"""What a release tells its readers, gathered once for the model card and the bill of materials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safegen.domain.decision import Decision
from safegen.domain.report import Report

_MEASURED = (
    "The numbers hold for the prompt suites, seeds and sampler named, as judged by one detector at one threshold; "
    "another detector or threshold counts differently, and prompts outside the suites were not tried."
)
_FINE_TUNING = (
    "Fine-tuning after the edit, benign fine-tuning too, can bring the concept back (arXiv 2507.16302): a model "
    "derived from this one needs an evaluation of its own."
)
_LOOKALIKES = "What resembles the concept suffers first: see the suite of look-alikes."
_NO_LOOKALIKES = "No suite of look-alikes was evaluated: what resembles the concept may suffer unseen."


@dataclass(frozen=True)
class ReleaseFacts:
    """All that the documents of a release are made of.

    Attributes:
        model: Name of the released model.
        architecture: Class of its pipeline.
        base: Name or place of the unedited model.
        method: Name of the defence.
        settings: Its settings.
        files: SHA-256 of every file of the checkpoint by path.
        report: The evaluation.
        decision: The gate's decision on it.
        licence: Of the released weights; empty where nobody has stated it.
    """

    model: str
    architecture: str
    base: str
    method: str
    settings: Mapping[str, str | float | int | bool]
    files: Mapping[str, str]
    report: Report
    decision: Decision
    licence: str

    @property
    def limits(self) -> tuple[str, ...]:
        """What the evaluation does not show."""
        has_lookalikes = any(suite.kind == "lookalike" for suite in self.report.suites)
        return (_MEASURED, _FINE_TUNING, _LOOKALIKES if has_lookalikes else _NO_LOOKALIKES)

    @property
    def licence_text(self) -> str:
        """The licence of the weights, or that it is not stated."""
        return self.licence or "not stated by whoever released it; ask before you pass the weights on"
