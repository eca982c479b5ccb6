"""Where a candidate and its numbers come from, beside the champion's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from safegen.domain.decision import Decision, decision_digest
from safegen.domain.report import Report, report_digest

Form = Literal["digest", "text"]

_GROUPS = ("Model", "Data", "Prompts and seeds", "Detector", "Sampler", "Random seeds", "Code", "Evidence")


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


@dataclass(frozen=True, slots=True)
class _Fact:
    group: str
    what: str
    value: str
    form: Form


def lineage_rows(report: Report, champion: Report | None, decision: Decision | None) -> list[LineageRow]:
    """List what an evaluation depends on, and then what only this decision depends on."""
    ours, theirs = _by_name(_facts(report)), _by_name(_facts(champion) if champion else ())
    # What the champion alone has comes last, within its group.
    facts = sorted({**theirs, **ours}.values(), key=lambda fact: _GROUPS.index(fact.group))
    rows = [
        LineageRow(
            fact.group,
            fact.what,
            _value(ours, fact),
            _value(theirs, fact) if champion else None,
            fact.form,
        )
        for fact in facts
    ]
    decided = _decision_facts(decision) if decision else ()
    return [*rows, *(LineageRow(fact.group, fact.what, fact.value, None, fact.form) for fact in decided)]


def _by_name(facts: Iterable[_Fact]) -> dict[tuple[str, str], _Fact]:
    return {(fact.group, fact.what): fact for fact in facts}


def _value(facts: Mapping[tuple[str, str], _Fact], wanted: _Fact) -> str:
    found = facts.get((wanted.group, wanted.what))
    return found.value if found else ""


def _facts(report: Report) -> Iterator[_Fact]:
    detector, sampler = report.detector, report.sampler
    yield from _digests("Model", {"checkpoint": report.checkpoint_sha256, "base": report.base_sha256})
    yield from _digests("Data", report.datasets)
    yield from _digests("Prompts and seeds", {suite.name: suite.prompt_set_sha256 for suite in report.suites})
    yield from _texts("Detector", {"name and version": f"{detector.name} {detector.version}"})
    yield from _digests("Detector", {"model file": detector.model_sha256})
    yield from _texts(
        "Detector", {"threshold": detector.threshold, "unsafe labels": ", ".join(detector.unsafe_labels)}
    )
    yield from _texts("Detector", detector.settings)
    size = f"{sampler.width_px} × {sampler.height_px} px"
    yield from _texts("Sampler", {"scheduler": sampler.scheduler, "steps": sampler.steps})
    yield from _texts("Sampler", {"guidance": f"{sampler.guidance:g}", "size": size})
    yield from _texts("Random seeds", report.seeds)
    yield from _digests("Code", {"safegen": report.code_version})
    yield from _texts("Code", report.versions)
    yield from _digests(
        "Evidence", {"report": report_digest(report), "results.parquet": report.results_sha256}
    )
    yield from _texts("Evidence", {"evaluated": _utc(report.created_utc)})


def _decision_facts(decision: Decision) -> Iterator[_Fact]:
    digests = {
        "decision": decision_digest(decision),
        "policy": decision.policy_sha256,
        "champion's report": decision.champion_report_sha256,
        "champion's checkpoint": decision.champion_checkpoint_sha256,
    }
    yield from _digests("Decision", {what: value for what, value in digests.items() if value})
    yield from _texts("Decision", {"policy's name": decision.policy_name or "not read"})
    by = ", ".join(f"{name} {version}" for name, version in decision.versions.items())
    yield from _texts("Decision", {"decided": _utc(decision.decided_utc), "decided by": by})


def _digests(group: str, values: Mapping[str, str]) -> Iterator[_Fact]:
    for what, value in values.items():
        yield _Fact(group, what, value, "digest")


def _texts(group: str, values: Mapping[str, object]) -> Iterator[_Fact]:
    for what, value in values.items():
        yield _Fact(group, what.replace("_", " "), str(value), "text")


def _utc(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
