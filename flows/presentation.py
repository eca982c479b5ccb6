"""What a person sees of a run in Prefect: artifacts with tables and links."""

from __future__ import annotations

from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run

from safegen.adapters.approval_signature import ApprovalSubject
from safegen.config import RunConfig
from safegen.domain.decision import Decision
from safegen.domain.decision_formats import as_markdown
from safegen.pipeline.outcomes import Decided, Evaluated, Ingested, Page, Promoted, Validated


def run_name() -> str:
    """Name the flow run that is about to begin after its model and seed."""
    config = RunConfig.model_validate(flow_run.parameters["config"])
    return f"{config.model}, seed {config.seed}"


def flow_run_tags() -> dict[str, str]:
    """Return the tags by which a run in MLflow tells its flow run: the id, and its page where there is a UI."""
    found = {"prefect_flow_run": flow_run.id, "prefect_url": flow_run.ui_url}
    return {name: value for name, value in found.items() if value}


def show_ingest(ingested: Ingested) -> None:
    """List what was taken in and what was refused."""
    rows = [{"what": f"accepted, {name}", "images": count} for name, count in sorted(ingested.counts.items())]
    rows += [
        {"what": f"refused, {name}", "images": count} for name, count in sorted(ingested.quarantined.items())
    ]
    create_table_artifact(rows, key="ingest", description=f"Dataset {ingested.dataset} {ingested.digest}")


def show_validation(validated: Validated) -> None:
    """Link the Data Docs."""
    create_link_artifact(
        validated.data_docs.as_uri(),
        "Data Docs",
        key="data-docs",
        description="Every expectation on the dataset, and how it came out",
    )


def show_decision(decided: Decided, evaluated: Evaluated) -> None:
    """Show the decision with every check, the metrics, and where the pictures are."""
    decision = Decision.model_validate_json(Path(decided.decision).read_text())
    sheets = "\n".join(f"- {suite}: <{path.as_uri()}>" for suite, path in evaluated.sheets.items())
    text = f"{as_markdown(decision)}\n\nPictures\n\n{sheets}\n\nRun: {evaluated.run_url}\n"
    if evaluated.run_url.startswith("http"):
        create_link_artifact(
            evaluated.run_url,
            "Evaluation in MLflow",
            key="mlflow-run",
            description="Metrics with intervals, settings, contact sheets; compare candidates there",
        )
    create_markdown_artifact(text, key="decision", description=f"Report {evaluated.report_digest}")
    rows = [{"metric": name, "value": value} for name, value in sorted(evaluated.metrics.items())]
    create_table_artifact(rows, key="metrics", description="Evaluation")


def show_page(page: Page) -> None:
    """Link the page with charts and pictures."""
    create_link_artifact(
        page.path.as_uri(),
        "Report page",
        key="report-page",
        description=f"A copy is with the run: {page.run_url}",
    )


def show_release(released: Promoted) -> None:
    """Tell which release the channel points to."""
    create_markdown_artifact(
        f"`{released.model}@{released.channel}` is version {released.version}: {released.uri}",
        key="release",
        description=f"{released.model} version {released.version}",
    )


def show_approval_wanted(decided: Decided, subject: ApprovalSubject) -> None:
    """Tell an approver what to read, and how to approve it."""
    text = (
        f"{subject.model}@{subject.channel} waits for an approval of checkpoint `{subject.checkpoint_sha256}`.\n\n"
        f"Read {decided.decision.as_uri()}, then sign it with your own key and resume this run:\n\n"
        f"    safegen approve {decided.decision} --channel {subject.channel} --key KEY --run {flow_run.id}\n"
    )
    create_markdown_artifact(text, key="approval-wanted", description=f"Decision {subject.decision_sha256}")
