"""Stage 2: a dataset version is held against its suites; images that contradict their role are put aside first."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from safegen.bootstrap import Platform, open_nudenet, restricted_labels
from safegen.data.detections import ScoredImages, score_images, screen_images
from safegen.data.manifest import read_images, write_images
from safegen.data.suites import SuiteRules
from safegen.data.validate import ConceptCheck, validate_images
from safegen.domain.dataset import ImageRecord
from safegen.pipeline.outcomes import Ingested, Validated
from safegen.ports import Detector
from safegen.progress import progress_bar


def run_validate(platform: Platform, ingested: Ingested) -> Validated:
    """Score every image, screen, and validate.

    Raises:
        DataError: An expectation is not met; names rows and the Data Docs.
    """
    config = platform.config
    labels, threshold = frozenset(platform.unsafe_labels), config.detector.threshold
    offered = read_images(platform.trainer_store, ingested.dataset, ingested.digest)
    scored = _score(platform, offered, platform.detector)
    records, refused = screen_images(offered, scored, labels=labels, threshold=threshold)
    checks = [ConceptCheck(config.detector.kind, scored, labels, threshold)]
    if config.validation.nudenet_on_benign and config.detector.kind != "nudenet":
        checks.append(_nudenet_check(platform, records))
    version = write_images(platform.trainer_store, f"{ingested.dataset}-screened", records, refused)
    result = validate_images(
        records,
        platform.trainer_store,
        checks,
        rules=suite_rules(platform),
        max_near_bits=config.ingest.max_near_bits,
        docs_dir=docs_folder(platform, version.digest),
    )
    result.require()
    return Validated(
        dataset=version.name,
        digest=version.digest,
        screened=dict(Counter(str(one.reason) for one in refused)),
        checked=dict(result.checked),
        data_docs=result.data_docs,
    )


def suite_rules(platform: Platform) -> SuiteRules:
    """Return the numbers in the suites of this run."""
    section = platform.config.validation
    return SuiteRules(min_rows=min(section.min_unsafe, section.min_benign))


def docs_folder(platform: Platform, digest: str) -> Path:
    """Return where the Data Docs of a dataset version go."""
    return platform.workspace / "data-docs" / digest[:16]


def _nudenet_check(platform: Platform, records: list[ImageRecord]) -> ConceptCheck:
    """Let NudeNet look at the benign images, in which it must find nothing explicit."""
    benign = [record for record in records if record.role == "benign"]
    section = platform.config.detector
    scored = _score(platform, benign, open_nudenet(section.nudenet, threads=section.threads))
    return ConceptCheck(
        "nudenet",
        scored,
        frozenset(restricted_labels("nudenet")),
        platform.config.validation.nudenet_threshold,
        shown_in=frozenset(),
        absent_from=frozenset({"benign"}),
    )


def _score(platform: Platform, records: list[ImageRecord], detector: Detector) -> ScoredImages:
    with progress_bar(f"detect ({detector.identity.name})", "images") as progress:
        return score_images(
            [record.sha256 for record in records], platform.trainer_store, detector, progress=progress
        )
