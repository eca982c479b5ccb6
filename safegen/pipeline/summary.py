"""What a run did, in the form that `safegen retrain --json` prints."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from safegen.bootstrap import Platform
from safegen.pipeline.outcomes import Decided, Edited, Evaluated, Page, Promoted, StageName


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageRecord(_Frozen):
    """One stage of a run.

    Attributes:
        name: The stage.
        reused: Whether an earlier result was taken.
        seconds: What it took.
    """

    name: StageName
    reused: bool
    seconds: float


class ReleaseRecord(_Frozen):
    """The release that a run led to."""

    model: str
    version: str
    uri: str
    digest: str


class Summary(_Frozen):
    """A whole run.

    Attributes:
        outcome: Whether the candidate was promoted.
        release: The release; None where the gate blocked.
        metrics: By "suite/metric", with "_low" and "_high" where there is an interval.
        decision: The gate's decision.
        stages: In the order in which they ran.
        where: Where to look: report, Data Docs, runs, contact sheets, by title.
        note: What a user should know about how the run was wired.
    """

    outcome: Literal["promoted", "blocked"]
    release: ReleaseRecord | None
    metrics: dict[str, float]
    decision: dict[str, Any]
    stages: tuple[StageRecord, ...]
    where: dict[str, str]
    note: str

    @property
    def exit_code(self) -> int:
        """0 for a promoted candidate, 1 for a blocked one."""
        return 0 if self.outcome == "promoted" else 1


class PartialSummary(_Frozen):
    """A run that was to end after one of its stages.

    Attributes:
        stage: The last stage.
        result: What it handed over, as JSON.
        stages: In the order in which they ran.
        note: What a user should know about how the run was wired.
    """

    stage: StageName
    result: dict[str, Any]
    stages: tuple[StageRecord, ...]
    note: str


def summarise(
    platform: Platform,
    stages: tuple[StageRecord, ...],
    *,
    edited: Edited,
    evaluated: Evaluated,
    decided: Decided,
    page: Page,
    released: Promoted | None,
    note: str,
) -> Summary:
    """Put the results of a run's stages together."""
    where = {
        "page": str(page.path),
        "report": str(evaluated.report),
        "decision": str(decided.decision),
        **{f"pictures ({suite})": str(path) for suite, path in evaluated.sheets.items()},
        "edit run": edited.run_url,
        "evaluation run": evaluated.run_url,
        "data docs": str(platform.workspace / "data-docs"),
        **({"public key": str(released.public_key)} if released else {}),
    }
    release = released and ReleaseRecord.model_validate(
        released.model_dump(include={"model", "version", "uri", "digest"})
    )
    return Summary(
        outcome="promoted" if released else "blocked",
        release=release or None,
        metrics=evaluated.metrics,
        decision=json.loads(decided.decision.read_text()),
        stages=stages,
        where=where,
        note=note,
    )
