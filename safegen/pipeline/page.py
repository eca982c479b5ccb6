"""Between gate and promotion: the page on which a person sees why the gate decided as it did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safegen.bootstrap import Platform
from safegen.config import RunConfig
from safegen.domain.digests import digest_json, sha256_file
from safegen.domain.gate_files import read_decision, read_report
from safegen.domain.results import RESULTS_FILE_NAME
from safegen.pipeline.evaluate import evaluation_run, pictures_dir, sampler_settings
from safegen.pipeline.outcomes import Decided, Edited, Evaluated, Page
from safegen.pipeline.suites import open_suites
from safegen.reporting.page import render_page, templates_digest
from safegen.reporting.pictures import KeptPictures

PAGE_FILE_NAME = "report.html"


def run_page(
    platform: Platform, edited: Edited, evaluated: Evaluated, decided: Decided, champion: Path | None
) -> Page:
    """Write report.html beside report.json, and keep a copy with the evaluation's run.

    Raises:
        DataError: Report, results and decision are not about the same evaluation.
    """
    links = {"edit run": edited.run_url, "evaluation run": evaluated.run_url}
    path = write_page(
        evaluated.report,
        evaluated.report.parent / PAGE_FILE_NAME,
        decision=decided.decision,
        champion=champion,
        kept=kept_pictures(platform.config),
        links=links,
    )
    outcome = "pass" if decided.passed else "blocked"
    with evaluation_run(
        platform,
        edited,
        evaluated.report_digest,
        resume_run_id=evaluated.run_id,
        more_tags={"decision": outcome},
    ) as run:
        run.log_artifact(path)
        run.log_artifact(decided.decision)
    return Page(path=path, run_url=evaluated.run_url)


def page_key(platform: Platform, evaluated: Evaluated, decided: Decided) -> str:
    """Return a digest of all that a page depends on beside the code."""
    return digest_json(
        {
            "report": evaluated.report_digest,
            "run": evaluated.run_id,
            "decision": sha256_file(decided.decision),
            "unsafe_pictures": platform.config.evaluate.unsafe_pictures,
            "templates": templates_digest(),
        }
    )


def write_page(
    report: Path,
    out: Path,
    *,
    results: Path | None = None,
    decision: Path | None = None,
    champion: Path | None = None,
    kept: KeptPictures | None = None,
    links: Mapping[str, str] | None = None,
) -> Path:
    """Write the page of an evaluation from its files.

    Args:
        report: report.json.
        out: Where to write.
        results: results.parquet; None for the one beside the report.
        decision: decision.json; None where the gate was not asked.
        champion: The champion's report.json.
        kept: Where the pictures are; None for a page without.
        links: As in `render_page`.

    Returns:
        `out`.

    Raises:
        DataError: A file is missing or cannot be read, or they are not about the same evaluation.
    """
    text = render_page(
        read_report(report),
        results or report.parent / RESULTS_FILE_NAME,
        decision=None if decision is None else read_decision(decision),
        champion=None if champion is None else read_report(champion),
        kept=kept,
        links=links,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    pending = out.with_name(f"{out.name}.part")
    pending.write_text(text, encoding="utf-8")
    return pending.replace(out)


def kept_pictures(config: RunConfig) -> KeptPictures:
    """Return where the pictures of a run are, and how it may show them."""
    return KeptPictures(
        suites={suite.name: suite for suite in open_suites(config)},
        work_dir=pictures_dir(config),
        sampler=sampler_settings(config.evaluate),
        shard_size=config.evaluate.shard_size,
        unsafe_pictures=config.evaluate.unsafe_pictures,
        subject_threshold=config.detector.threshold,
    )
