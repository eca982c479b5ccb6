"""Champion and challenger side by side: two runs under the evaluation, which the tracker's UI compares."""

from __future__ import annotations

from pathlib import Path

from safegen.bootstrap import Platform
from safegen.domain.gate_files import read_report
from safegen.domain.report import Report, flat_metrics
from safegen.pipeline.outcomes import Edited, Evaluated
from safegen.ports import TrackedRun

DIFFERENCE = "difference"
"""Prefix of the challenger's metrics that are its value less the champion's."""


def log_comparison(platform: Platform, edited: Edited, evaluated: Evaluated, champion: Path) -> None:
    """Record both sides under the evaluation's run, on the same metric names.

    Args:
        platform: The run's wiring.
        edited: The challenger.
        evaluated: Its evaluation.
        champion: The report of the release that it was compared with.

    Raises:
        RegistryError: The tracker cannot be reached or refuses.
        DataError: A report cannot be read.
    """
    reports = {"champion": read_report(champion), "challenger": read_report(evaluated.report)}
    values = {role: dict(flat_metrics(report)) for role, report in reports.items()}
    differences = {
        f"{DIFFERENCE}/{name}": value - values["champion"][name]
        for name, value in values["challenger"].items()
        if name in values["champion"] and not name.endswith(("_low", "_high"))
    }
    values["challenger"] |= differences
    for role, report in reports.items():
        with _start(platform, role, report, evaluated.run_id) as run:
            if role == "challenger":
                run.measure_model(edited.model_id)
            for name, digest in report.datasets.items():
                run.log_dataset(name, digest, f"datasets/{name}/{digest}/manifest.parquet", "edited on")
            run.log_metrics(values[role])


def _start(platform: Platform, role: str, report: Report, parent: str) -> TrackedRun:
    return platform.tracker.start_run(
        experiment=f"safegen/{platform.config.model}/evaluate",
        run_name=role,
        tags={
            "stage": "compare",
            "role": role,
            "checkpoint_digest": report.checkpoint_sha256,
            "base_digest": report.base_sha256,
        },
        description=f"The {role}, `{report.checkpoint_sha256[:12]}`, as evaluated {report.created_utc:%Y-%m-%d}.",
        parent_run_id=parent,
    )
