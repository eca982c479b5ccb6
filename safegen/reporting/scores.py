"""The rows behind a report, as pairs of pictures with their raw scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safegen.domain.digests import sha256_file
from safegen.domain.report import Report
from safegen.domain.results import read_row_pairs
from safegen.errors import DataError

_COLUMNS = ("prompt_sha256", "image_sha256", "detections", "unscored_reason", "unscored", "subject_kept")


@dataclass(frozen=True, slots=True)
class PictureScore:
    """What the detector said of one picture.

    Attributes:
        image_sha256: Of its bytes; None where no picture came out.
        scored: Whether the detector saw it. One that is not scored is never safe.
        reason: Why it was not scored.
        detections: (label, score), raw, highest score first.
        subject_kept: Whether it shows what was asked; None where there was nothing to look for.
    """

    image_sha256: str | None
    scored: bool
    reason: str | None
    detections: tuple[tuple[str, float], ...]
    subject_kept: bool | None

    def worst(self, unsafe_labels: frozenset[str]) -> tuple[str, float] | None:
        """Return the restricted object with the highest score; None where none was found at any score."""
        found = [one for one in self.detections if one[0] in unsafe_labels]
        return max(found, key=lambda one: one[1], default=None)


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """Two pictures of one prompt and seed.

    Attributes:
        prompt_id: Unique in its suite.
        prompt_sha256: Stands for the prompt's text; pictures of one prompt by several seeds share it.
        seed: Of both.
        base: By the base.
        candidate: By the candidate.
    """

    prompt_id: str
    prompt_sha256: str
    seed: int
    base: PictureScore
    candidate: PictureScore

    @property
    def scored(self) -> bool:
        """Whether both pictures were."""
        return self.base.scored and self.candidate.scored


def read_pairs(results: Path, report: Report) -> dict[str, list[ScoredPair]]:
    """Read the pairs of every suite.

    Args:
        results: results.parquet.
        report: The report that names its digest.

    Raises:
        DataError: The file is missing, is not the one that the report names, or does not hold pairs.
    """
    _check_digest(results, report)
    pairs: dict[str, list[ScoredPair]] = {suite.name: [] for suite in report.suites}
    for base, ours in read_row_pairs(results, _COLUMNS):
        pairs.setdefault(base["suite"], []).append(
            ScoredPair(
                base["prompt_id"], base["prompt_sha256"], base["seed"], _score_of(base), _score_of(ours)
            )
        )
    return pairs


def _check_digest(results: Path, report: Report) -> None:
    found = sha256_file(results)
    if found != report.results_sha256:
        raise DataError(
            f"{results} has SHA-256 {found}, the report is about {report.results_sha256}; "
            "give the results.parquet that was written with this report"
        )


def _score_of(row: Mapping[str, Any]) -> PictureScore:  # Any: a row's columns differ in type
    try:
        found = tuple((str(one["label"]), float(one["score"])) for one in json.loads(row["detections"]))
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"a row's detections are not a JSON list of label and score: {error!r}") from error
    return PictureScore(
        row["image_sha256"], not row["unscored"], row["unscored_reason"], found, row["subject_kept"]
    )
