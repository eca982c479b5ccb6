"""The page of a model version in the registry: its whole story, in as many characters as a registry keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from safegen.domain.decision_formats import markdown_cell
from safegen.release.facts import ReleaseFacts
from safegen.release.markdown import metric_interval, metric_value, table

MOST_CHARACTERS = 5000
"""MLflow's column for a version's description on PostgreSQL and MySQL."""
_SHOWN_DIGEST, _SHOWN_REASON = 16, 110


@dataclass(frozen=True)
class PageLinks:
    """Where the page leads.

    Attributes:
        edit_run: Id of the run that edited.
        edit_url: Its page, or the command that opens it.
        evaluation_run: Id of the run that evaluated; it holds report, pictures and the comparison with the champion.
        evaluation_url: Its page, or the command that opens it.
        channel: Channel that the release is served in.
    """

    edit_run: str
    edit_url: str
    evaluation_run: str
    evaluation_url: str
    channel: str


def version_page(facts: ReleaseFacts, links: PageLinks) -> str:
    """Return the page as Markdown, at most `MOST_CHARACTERS` long.

    What does not fit is left out from the longest table's end, metrics first, then checks that hold; the page says how
    much, and the report and the decision hold all of it. A check that failed is always shown.

    Args:
        facts: What is known of the candidate.
        links: Where its runs are.
    """
    metrics, checks = _metric_rows(facts), _check_rows(facts)
    failed = [row for row in checks if row[1] == "**no**"]
    page = _page(facts, links, metrics, checks)
    shown_metrics, shown_checks = list(metrics), [*failed, *(row for row in checks if row not in failed)]
    while len(page) > MOST_CHARACTERS and (shown_metrics or len(shown_checks) > 1):
        (shown_metrics or shown_checks).pop()
        page = _page(facts, links, shown_metrics, shown_checks)
    return page[:MOST_CHARACTERS]


def _page(
    facts: ReleaseFacts,
    links: PageLinks,
    metrics: Sequence[tuple[str, ...]],
    checks: Sequence[tuple[str, ...]],
) -> str:
    decision = facts.decision
    head = f"**{decision.outcome}** by policy {markdown_cell(decision.policy_name or 'unknown')}, "
    head += f"{decision.decided_utc:%Y-%m-%d %H:%M} UTC."
    sections = (
        head,
        "### Decision\n"
        + table(("check", "holds", "reason"), checks)
        + _left_out(len(decision.checks), len(checks)),
        "### How to verify\n" + _verification(facts, links),
        "### Runs\n" + _runs(links),
        "### Made from\n" + table(("what", "digest or value"), _origin_rows(facts)),
        "### Measured\n"
        + table(("suite", "metric", "value", "95 %", "n"), metrics)
        + _left_out(len(_metric_rows(facts)), len(metrics)),
    )
    return "\n\n".join(sections) + "\n"


def _check_rows(facts: ReleaseFacts) -> list[tuple[str, ...]]:
    return [
        (
            markdown_cell(check.name),
            "yes" if check.passed else "**no**",
            markdown_cell(_short(check.reason)),
        )
        for check in facts.decision.checks
    ]


def _metric_rows(facts: ReleaseFacts) -> list[tuple[str, ...]]:
    return [
        (
            markdown_cell(suite.name),
            markdown_cell(metric.name),
            metric_value(metric),
            metric_interval(metric),
            str(metric.n),
        )
        for suite in facts.report.suites
        for metric in suite.metrics
    ]


def _origin_rows(facts: ReleaseFacts) -> list[tuple[str, str]]:
    report = facts.report
    settings = ", ".join(f"{name} {value}" for name, value in facts.settings.items())
    return [
        ("checkpoint", f"`{report.checkpoint_sha256}`"),
        (f"base {markdown_cell(_short(facts.base))}", f"`{report.base_sha256[:_SHOWN_DIGEST]}`"),
        *(
            (f"dataset {markdown_cell(name)}", f"`{digest[:_SHOWN_DIGEST]}`")
            for name, digest in report.datasets.items()
        ),
        *(
            (f"prompts {markdown_cell(suite.name)}", f"`{suite.prompt_set_sha256[:_SHOWN_DIGEST]}`")
            for suite in report.suites
        ),
        (f"edit {markdown_cell(facts.method)}", markdown_cell(settings)),
        ("report", f"`{(facts.decision.report_sha256 or 'none')[:_SHOWN_DIGEST]}`"),
    ]


def _verification(facts: ReleaseFacts, links: PageLinks) -> str:
    if not facts.decision.passed:
        return "There is no release to verify: this version was blocked."
    return (
        "This page can be edited by anyone who may write to the registry; the release cannot. Fetch and check it:"
        "\n\n"
        f"    safegen pull {facts.model}@{links.channel} DIR\n"
        "    safegen verify DIR --public-key release.pub\n\n"
        "The tag `signed_decision` holds the decision with the promoter's signature."
    )


def _runs(links: PageLinks) -> str:
    rows = (
        ("edit, with curves and previews", links.edit_run, links.edit_url),
        (
            "evaluation, with report.json, pictures and champion against challenger",
            links.evaluation_run,
            links.evaluation_url,
        ),
    )
    return "\n".join(f"- {what}: {_link(run, url)}" for what, run, url in rows)


def _link(run: str, url: str) -> str:
    return f"[{run}]({url})" if url.startswith(("http://", "https://")) else f"`{run}`"


def _left_out(total: int, shown: int) -> str:
    return f"\n\n{total - shown} more are in the evaluation run." if total > shown else ""


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_REASON else f"{text[: _SHOWN_REASON - 1]}…"
