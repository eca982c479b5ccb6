"""The page itself: what the other modules compute, in one HTML file without a script or a reference outwards."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from safegen.domain.decision import CheckOutcome, Decision
from safegen.domain.digests import digest_json, sha256_bytes
from safegen.domain.report import Metric, Report, report_digest
from safegen.errors import DataError
from safegen.reporting.champion import changed_metrics, incomparable_suites
from safegen.reporting.charts import SweepPanel, removal_chart, sweep_panel, trade_off_chart
from safegen.reporting.gallery import make_galleries
from safegen.reporting.label_table import count_labels
from safegen.reporting.lineage import lineage_rows
from safegen.reporting.pictures import KeptPictures
from safegen.reporting.scores import ScoredPair, read_pairs
from safegen.reporting.sweep import sweep_thresholds, swept_thresholds
from safegen.reporting.templating import environment

_CHECK_GROUPS = {
    "undecided": "What kept the gate from deciding",
    "policy": "What the policy asks of the candidate",
    "champion": "What may not get worse than the champion",
    "evidence": "Whether the report can be trusted",
}
_HEADLINES = (
    ("unsafe", "nrr"),
    ("benign", "subject_kept_rate"),
    ("lookalike", "subject_kept_rate"),
    ("benign", "kid"),
)


def render_page(
    report: Report,
    results: Path,
    *,
    decision: Decision | None = None,
    champion: Report | None = None,
    kept: KeptPictures | None = None,
    links: Mapping[str, str] | None = None,
) -> str:
    """Return the HTML of an evaluation's page.

    Args:
        report: The report.
        results: Its results.parquet, hashed here.
        decision: The gate's decision on it; None where it was not asked.
        champion: The report that the decision compared with.
        kept: Where the pictures are; None for a page without pictures.
        links: Where else to look, by title: addresses, or commands that open something.

    Raises:
        DataError: The results or the decision are about another report, or the rows cannot be read.
    """
    _check_decision(report, decision, champion)
    pairs = read_pairs(results, report)
    unsafe = {suite.name: pairs[suite.name] for suite in report.suites if suite.kind == "unsafe"}
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            decision=decision,
            champion=champion,
            check_groups=_grouped(decision) if decision else [],
            headlines=_headlines(report),
            removal=removal_chart(report, champion, decision),
            sweeps=[_sweep(report, name, of_suite) for name, of_suite in unsafe.items()],
            trade_off=trade_off_chart(report, champion, decision),
            labels=count_labels(unsafe, report.detector),
            unsafe_suites=list(unsafe),
            fidelity_suites=[suite for suite in report.suites if suite.kind != "unsafe"],
            galleries=None if kept is None else make_galleries(report, champion, pairs, kept),
            changes=changed_metrics(report, champion) if champion else [],
            incomparable=incomparable_suites(report, champion) if champion else [],
            lineage=lineage_rows(report, champion, decision),
            links=dict(links or {}),
        )
    )


def templates_digest() -> str:
    """Return a digest of the templates: with the code, all that decides what a page looks like."""
    folder = resources.files("safegen.reporting") / "templates"
    return digest_json(
        {one.name: sha256_bytes(one.read_bytes()) for one in folder.iterdir() if one.is_file()}
    )


def _check_decision(report: Report, decision: Decision | None, champion: Report | None) -> None:
    if decision is None:
        return
    documents = (
        ("report", decision.report_sha256, report),
        ("champion", decision.champion_report_sha256, champion),
    )
    for what, stated, document in documents:
        found = report_digest(document) if document else None
        if stated is not None and found is not None and stated != found:
            raise DataError(
                f"the decision is about {what} {stated}, the one given has digest {found}; "
                "give the decision that was made on it"
            )


def _grouped(decision: Decision) -> list[tuple[str, list[CheckOutcome]]]:
    """Group checks by what they ask, failed ones first."""
    groups = [
        (title, sorted((one for one in decision.checks if one.kind == kind), key=lambda one: one.passed))
        for kind, title in _CHECK_GROUPS.items()
    ]
    return [(title, checks) for title, checks in groups if checks]


def _headlines(report: Report) -> list[tuple[str, Metric]]:
    """Choose the few numbers that stand on top: suite and metric."""
    return [
        (suite.name, metric)
        for kind, name in _HEADLINES
        for suite in report.suites
        if suite.kind == kind and (metric := suite.metric(name)) is not None
    ]


def _sweep(report: Report, name: str, pairs: list[ScoredPair]) -> SweepPanel:
    detector = report.detector
    points = sweep_thresholds(
        pairs, detector.unsafe_labels, swept_thresholds(detector), seed=report.seeds.get("bootstrap", 0)
    )
    return sweep_panel(name, points, detector.threshold)
