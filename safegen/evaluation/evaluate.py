"""The stage: draw the same prompts and seeds by base and candidate, score, measure, and write the report.

    draw base, draw candidate -> results.parquet, report.json, contact sheets
        detect and measure what is drawn, meanwhile

Pictures and detections are kept under `work_dir` by digest, so a run that was killed goes on after its last shard, and
a base that was evaluated before is neither drawn nor loaded again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from safegen.diffusion.sampler import SamplerSettings
from safegen.domain.report import Metric, Report, report_digest
from safegen.errors import EvaluationError
from safegen.evaluation.contact_sheet import SheetPair, contact_sheet
from safegen.evaluation.follow import Follower, Variant
from safegen.evaluation.generate import DrawnSuite, EvaluatedCheckpoint, Progress, draw_suites, silent
from safegen.evaluation.prompt_suite import PromptSuite
from safegen.evaluation.quality import PairMeasures, QualityNets, evenly_spaced
from safegen.evaluation.quality_metrics import Reference, quality_metrics
from safegen.evaluation.report_builder import (
    REPORT_FILE_NAME,
    Provenance,
    sampler_record,
    write_report,
    write_results,
)
from safegen.evaluation.suite_report import Judgement, ScoredSuite, suite_report
from safegen.ports import Detector

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """How candidates are compared with their base.

    Attributes:
        judgement: What counts as unsafe and as drawn.
        sampler: How pictures are drawn.
        shard_size: Pictures between two points from which a killed run goes on.
        sheet_pairs: Pairs on the contact sheet of a suite.
        unsafe_pictures: How unsafe suites appear on contact sheets: pixelated under the prompt's id, or as they are
            under the prompt (for a restricted concept that harms nobody).
    """

    judgement: Judgement
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    shard_size: int = 64
    sheet_pairs: int = 12
    unsafe_pictures: Literal["pixelated", "shown"] = "pixelated"


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What an evaluation ends with.

    Attributes:
        report: The report.
        report_digest: `safegen.domain.report.report_digest` of it.
        report_path: report.json.
        results_path: results.parquet.
        sheets: Contact sheet by suite.
    """

    report: Report
    report_digest: str
    report_path: Path
    results_path: Path
    sheets: dict[str, Path]


def evaluate(  # noqa: PLR0917  (two models, what they draw, who judges, and how)
    base: EvaluatedCheckpoint,
    candidate: EvaluatedCheckpoint,
    suites: Sequence[PromptSuite],
    detector: Detector,
    nets: QualityNets,
    settings: EvaluationSettings,
    *,
    provenance: Provenance,
    work_dir: Path,
    out_dir: Path,
    now: datetime,
    progress: Progress = silent,
    reference: Reference | None = None,
) -> EvaluationResult:
    """Evaluate a candidate against its base.

    Args:
        base: The unedited model.
        candidate: The edited one.
        suites: Prompts; names must differ.
        detector: Finds the restricted concept and asked objects.
        nets: Measure pictures of suites that are not unsafe.
        settings: How.
        provenance: What the report says of the candidate; its digests must be those of `base` and `candidate`.
        work_dir: Where pictures and detections are kept, for any number of evaluations.
        out_dir: Where report, results and contact sheets go.
        now: When the report is made, with its zone.
        progress: Told of all work.
        reference: Pictures for FID and KID; None compares with the base's.

    Raises:
        EvaluationError: Nothing to evaluate, digests that disagree, or a part that failed.
    """
    _check_suites(suites)
    _check_digests(base, candidate, provenance)
    _check_labels(settings.judgement, detector)
    out_dir.mkdir(parents=True, exist_ok=True)
    with Follower(detector, nets) as follower:
        drawn = {
            variant: draw_suites(
                checkpoint,
                tuple(suites),
                settings.sampler,
                work_dir=work_dir,
                shard_size=settings.shard_size,
                variant=variant,
                progress=progress,
                on_shard=follower.follows(variant),
            )
            for variant, checkpoint in _variants(base, candidate)
        }
        follower.finish(progress)
    pairs = list(zip(drawn["base"], drawn["candidate"], strict=True))
    seen = list(follower.suites())
    results = write_results(out_dir, [scored for scored, _ in seen], settings.judgement)
    reports = [
        suite_report(scored, settings.judgement, _quality(scored, measures, nets, settings, reference))
        for scored, measures in seen
    ]
    report = write_report(
        out_dir,
        reports,
        provenance=provenance,
        identity=detector.identity,
        judgement=settings.judgement,
        sampler=sampler_record(settings.sampler, _size_px(pairs)),
        results=results,
        now=now,
    )
    sheets = {ours.suite.name: _write_sheet(ours, theirs, settings, out_dir) for ours, theirs in pairs}
    digest = report_digest(report)
    _log.info("evaluated %s against %s: report %s", candidate.sha256, base.sha256, digest)
    return EvaluationResult(report, digest, out_dir / REPORT_FILE_NAME, results, sheets)


def _check_suites(suites: Sequence[PromptSuite]) -> None:
    names = [suite.name for suite in suites]
    if not names or len(set(names)) != len(names):
        raise EvaluationError(f"cannot evaluate suites {names}; expected at least one, with different names")


def _check_digests(base: EvaluatedCheckpoint, candidate: EvaluatedCheckpoint, provenance: Provenance) -> None:
    stated = (provenance.base_sha256, provenance.checkpoint_sha256)
    if stated != (base.sha256, candidate.sha256):
        raise EvaluationError(
            f"cannot evaluate: the report would speak of {stated}, the checkpoints are "
            f"{(base.sha256, candidate.sha256)}; pass the digests of what is evaluated"
        )


def _check_labels(judgement: Judgement, detector: Detector) -> None:
    unknown = sorted(set(judgement.unsafe_labels) - set(detector.labels))
    if unknown or not judgement.unsafe_labels:
        raise EvaluationError(
            f"unsafe labels {', '.join(unknown) or 'are none'}: detector {detector.identity.name} "
            "does not know them, so nothing would ever be unsafe; choose among its labels"
        )


def _variants(
    base: EvaluatedCheckpoint, candidate: EvaluatedCheckpoint
) -> tuple[tuple[Variant, EvaluatedCheckpoint], ...]:
    return ("base", base), ("candidate", candidate)


def _quality(
    scored: ScoredSuite,
    measures: PairMeasures | None,
    nets: QualityNets,
    settings: EvaluationSettings,
    reference: Reference | None,
) -> list[Metric]:
    if scored.suite.kind == "unsafe":
        return []
    seed = settings.judgement.bootstrap_seed
    return list(quality_metrics(measures, nets, seed=seed, reference=reference))


def _size_px(pairs: Sequence[tuple[DrawnSuite, DrawnSuite]]) -> tuple[int, int]:
    for pixels in (
        picture.pixels() for pair in pairs for drawn in pair for shard in drawn.shards() for picture in shard
    ):
        if pixels is not None:
            return pixels.shape[1], pixels.shape[0]
    raise EvaluationError(
        "neither base nor candidate drew a single picture; check the checkpoints and the precision"
    )


def _write_sheet(
    base: DrawnSuite, candidate: DrawnSuite, settings: EvaluationSettings, out_dir: Path
) -> Path:
    suite = base.suite
    wanted = set(evenly_spaced(len(suite.rows) + 1, settings.sheet_pairs))
    sheet = contact_sheet(suite.name, list(_sheet_pairs(base, candidate, wanted, settings)))
    path = out_dir / "sheets" / f"{suite.name}.png"
    path.parent.mkdir(exist_ok=True)
    sheet.save(path)
    return path


def _sheet_pairs(
    base: DrawnSuite, candidate: DrawnSuite, wanted: set[int], settings: EvaluationSettings
) -> Iterator[SheetPair]:
    hidden = base.suite.kind == "unsafe" and settings.unsafe_pictures == "pixelated"
    number = 0
    for ours, theirs in zip(base.shards(), candidate.shards(), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            number += 1
            if number in wanted:
                caption = one.row.prompt_id if hidden else one.row.text
                yield SheetPair(caption, one.pixels(), other.pixels(), hidden)
