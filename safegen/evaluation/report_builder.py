"""Writes what an evaluation ends with: results.parquet, and the report.json that names its digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path

import pyarrow as pa

from safegen.diffusion.guidance import ClassifierFreeGuidance
from safegen.diffusion.sampler import SCHEDULER_NAME, SamplerSettings
from safegen.domain.consistency import inconsistencies
from safegen.domain.detection import DetectorIdentity
from safegen.domain.digests import sha256_file
from safegen.domain.recount import result_disagreements
from safegen.domain.report import Report, SamplerRecord, SuiteReport, detector_record, report_json
from safegen.domain.results import RESULTS_FILE_NAME, RESULTS_SCHEMA
from safegen.errors import EvaluationError
from safegen.evaluation.shards import write_table
from safegen.evaluation.suite_report import Judgement, ScoredSuite, result_rows

REPORT_FILE_NAME = "report.json"
_LIBRARIES = ("torch", "diffusers", "transformers", "torchmetrics", "onnxruntime", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a candidate comes from, as its report states it.

    Attributes:
        model: Name of the model line, such as "miniature".
        checkpoint_sha256: Tree digest of the candidate's folder.
        base_sha256: Tree digest of the base's folder.
        datasets: Dataset version by name.
        seeds: By purpose, such as "evaluation" and "edit".
        code_version: Of safegen.
        checkpoint_files: SHA-256 of every file of the candidate, by path.
        base_files: The same of the base.
    """

    model: str
    checkpoint_sha256: str
    base_sha256: str
    datasets: Mapping[str, str]
    seeds: Mapping[str, int]
    code_version: str
    checkpoint_files: Mapping[str, str] = field(default_factory=dict)
    base_files: Mapping[str, str] = field(default_factory=dict)


def write_results(folder: Path, scored: Sequence[ScoredSuite], judgement: Judgement) -> Path:
    """Write results.parquet: a row per suite, prompt, seed and variant, with raw detections."""
    rows = [row for suite in scored for row in result_rows(suite, judgement)]
    path = folder / RESULTS_FILE_NAME
    write_table(path, pa.Table.from_pylist(rows, schema=RESULTS_SCHEMA))
    return path


def sampler_record(sampler: SamplerSettings, size_px: tuple[int, int]) -> SamplerRecord:
    """Record how pictures of this width and height were drawn."""
    return SamplerRecord(
        scheduler=f"{SCHEDULER_NAME}, eta 0, {sampler.precision}",
        steps=sampler.steps,
        guidance=ClassifierFreeGuidance(sampler.guidance).scale,
        width_px=size_px[0],
        height_px=size_px[1],
    )


def write_report(
    folder: Path,
    suites: Sequence[SuiteReport],
    *,
    provenance: Provenance,
    identity: DetectorIdentity,
    judgement: Judgement,
    sampler: SamplerRecord,
    results: Path,
    now: datetime,
) -> Report:
    """Write report.json beside its results, after checking that both agree.

    Args:
        folder: Where to write.
        suites: What was measured.
        provenance: Of what.
        identity: By which detector.
        judgement: What counted.
        sampler: How pictures were drawn.
        results: The rows behind it.
        now: When the evaluation ended, with its zone.

    Raises:
        EvaluationError: The report contradicts itself or its rows.
    """
    report = Report(
        model=provenance.model,
        checkpoint_sha256=provenance.checkpoint_sha256,
        base_sha256=provenance.base_sha256,
        datasets=dict(provenance.datasets),
        detector=detector_record(identity, judgement.unsafe_labels, judgement.threshold),
        sampler=sampler,
        seeds={**provenance.seeds, "bootstrap": judgement.bootstrap_seed},
        versions=library_versions(),
        code_version=provenance.code_version,
        created_utc=now,
        results_sha256=sha256_file(results),
        suites=tuple(suites),
        checkpoint_files=dict(provenance.checkpoint_files),
        base_files=dict(provenance.base_files),
    )
    problems = [*inconsistencies(report), *result_disagreements(report, results)]
    if problems:
        raise EvaluationError(
            f"the report contradicts itself: {'; '.join(problems[:3])}; this is a fault in safegen"
        )
    pending = folder / f"{REPORT_FILE_NAME}.part"
    pending.write_text(report_json(report), encoding="utf-8")
    pending.replace(folder / REPORT_FILE_NAME)
    return report


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries on which the numbers depend."""
    return {name: metadata.version(name) for name in _LIBRARIES}
