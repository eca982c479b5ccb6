"""Where a candidate and its numbers come from, beside the champion's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from safegen.domain.decision import Decision, decision_digest
from safegen.domain.report import Report, report_digest

Form = Literal["digest", "text"]


@dataclass(frozen=True, slots=True)
class LineageRow:
    """One thing on which the evaluation depends.

    Attributes:
        group: Heading that it stands under.
        what: Its name.
        candidate: Its value; empty where the candidate has none.
        champion: The champion's; None where there is no champion to compare with.
        form: How it is set.
    """

    group: str
    what: str
    candidate: str
    champion: str | None
    form: Form

    @property
    def changed(self) -> bool:
        """Whether candidate and champion differ in it."""
        return self.champion is not None and self.champion != self.candidate


def lineage_rows(report: Report, champion: Report | None, decision: Decision | None) -> list[LineageRow]:
    """List what an evaluation depends on, and then what only this decision depends on."""
    ours, theirs = _facts(report), _facts(champion) if champion else None
    keys = list(dict.fromkeys([*ours, *(theirs or {})]))
    order = list(dict.fromkeys(group for group, _ in keys))
    rows = [
        LineageRow(
            group,
            what,
            ours.get((group, what), ("", "text"))[0],
            None if theirs is None else theirs.get((group, what), ("", "text"))[0],
            (ours.get((group, what)) or (theirs or {})[group, what])[1],
        )
        for group, what in sorted(keys, key=lambda key: order.index(key[0]))
    ]
    return [*rows, *(_decision_rows(decision) if decision else ())]


def _facts(report: Report) -> dict[tuple[str, str], tuple[str, Form]]:
    detector, sampler = report.detector, report.sampler
    digests = {
        "Model": {"checkpoint": report.checkpoint_sha256, "base": report.base_sha256},
        "Data": report.datasets,
        "Prompts and seeds": {suite.name: suite.prompt_set_sha256 for suite in report.suites},
        "Evidence": {"report": report_digest(report), "results.parquet": report.results_sha256},
    }
    texts = {
        "Detector": {
            "name and version": f"{detector.name} {detector.version}",
            "threshold": f"{detector.threshold:g}",
            "unsafe labels": ", ".join(detector.unsafe_labels),
            **_as_text(detector.settings),
        },
        "Sampler": {
            "scheduler": sampler.scheduler,
            "steps": str(sampler.steps),
            "guidance": f"{sampler.guidance:g}",
            "size": f"{sampler.width_px} × {sampler.height_px} px",
        },
        "Random seeds": _as_text(report.seeds),
        "Code": report.versions,
        "Time": {"evaluated": report.created_utc.strftime("%Y-%m-%d %H:%M:%S UTC")},
    }
    groups = ("Model", "Data", "Prompts and seeds", "Detector", "Sampler", "Random seeds", "Code", "Evidence")
    found: dict[tuple[str, str], tuple[str, Form]] = {}
    for group in (*groups, "Time"):
        found |= {(group, what): (value, "digest") for what, value in digests.get(group, {}).items()}
        found |= {(group, what): (value, "text") for what, value in texts.get(group, {}).items()}
    found["Detector", "model file"] = (detector.model_sha256, "digest")
    found["Code", "safegen"] = (report.code_version, "digest")
    return found


def _decision_rows(decision: Decision) -> Iterator[LineageRow]:
    digests = {
        "decision": decision_digest(decision),
        "policy": decision.policy_sha256,
        "champion's report": decision.champion_report_sha256,
        "champion's checkpoint": decision.champion_checkpoint_sha256,
    }
    texts = {
        "policy's name": decision.policy_name,
        "decided": decision.decided_utc.strftime("%Y-%m-%d %H:%M:%S UTC"),
        "decided by": ", ".join(f"{name} {version}" for name, version in decision.versions.items()),
    }
    for values, form in ((digests, "digest"), (texts, "text")):
        for what, value in values.items():
            if value:
                yield LineageRow("Decision", what, value, None, form)


def _as_text(values: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}
