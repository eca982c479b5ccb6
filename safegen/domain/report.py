"""The evaluation report (`report.json`, schema version 1): all that a gate needs to decide, and to trust it.

    Report
    ├── what was evaluated    checkpoint, base, datasets, model
    ├── how                   detector, sampler, seeds, versions
    ├── results_sha256        of results.parquet, the rows behind it (see `safegen.domain.results`)
    └── suites: SuiteReport
        └── metrics: Metric   value and interval, or the reason why there is none

The models only fix the form. Whether the numbers agree with each other is asked by `inconsistencies`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from safegen.domain.detection import DetectorIdentity
from safegen.domain.digests import digest_json
from safegen.domain.statistics import Estimate, Interval, NotComputable

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=100)]
Rate = Annotated[float, Field(ge=0.0, le=1.0)]
Plain = str | bool | int | float
SuiteKind = Literal["unsafe", "benign", "lookalike"]


class Record(BaseModel):
    """A frozen value that refuses keys it does not know and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class MetricKind:
    """What a metric name stands for.

    Attributes:
        unit: "rate", "score" or "distance".
        least: No value lies below.
        most: No value lies above.
        higher_is_better: Which way is good; None where neither is (a base's own value).
    """

    unit: str
    least: float
    most: float
    higher_is_better: bool | None


METRICS: Final[dict[str, MetricKind]] = {
    "nrr": MetricKind("rate", -math.inf, 1, True),
    "nrr_parts": MetricKind("rate", -math.inf, 1, True),
    "unsafe_rate": MetricKind("rate", 0, 1, False),
    "base_unsafe_rate": MetricKind("rate", 0, 1, None),
    "unscored_rate": MetricKind("rate", 0, 1, False),
    "subject_kept_rate": MetricKind("rate", 0, 1, True),
    "base_subject_kept_rate": MetricKind("rate", 0, 1, None),
    "subject_kept_drop": MetricKind("rate", -1, 1, True),
    "over_removal_rate": MetricKind("rate", 0, 1, False),
    "fid": MetricKind("distance", 0, math.inf, False),
    "kid": MetricKind("distance", -math.inf, math.inf, False),
    "clip_score": MetricKind("score", -100, 100, True),
    "base_clip_score": MetricKind("score", -100, 100, None),
    "clip_score_drop": MetricKind("score", -200, 200, True),
    "perceptual_distance": MetricKind("distance", 0, math.inf, False),
    "lpips": MetricKind("distance", 0, math.inf, False),
}
"""The metrics in use. The two `*_drop` are candidate minus base: negative where the candidate is worse."""


class Metric(Record):
    """One number with its interval.

    Attributes:
        name: See `METRICS`.
        value: The point estimate, None where it could not be computed.
        low: Lower end of the 95 % interval, None where there is none.
        high: Upper end.
        n: Independent units behind it: prompts for nrr and nrr_parts, else images (of one variant) or pairs.
        unit: "rate" (0..1), "score" (cosine x 100) or "distance".
        reason: Why there is no value.
        method: What one must know to compare it: feature net and its SHA-256, resize rule, model, resamples.
    """

    name: Name
    value: float | None
    low: float | None = None
    high: float | None = None
    n: NonNegativeInt
    unit: str
    reason: str | None = None
    method: dict[str, Plain] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _value_or_reason(self) -> Metric:
        if (self.value is None) != bool(self.reason):
            raise ValueError(
                f"metric {self.name} has value {self.value} and reason {self.reason!r}; expected one of them"
            )
        return self


class SuiteReport(Record):
    """One prompt set and what was measured on it.

    Attributes:
        name: Such as "explicit".
        kind: Whether its prompts ask for the restricted concept, for anything else, or for look-alikes of it.
        prompt_set_sha256: Digest of the prompt set.
        n_prompts: Prompts evaluated.
        n_images: Pairs of images (one of the base, one of the candidate, same prompt and seed).
        n_scored: Pairs of which both images could be scored.
        n_unscored: Pairs of which either could not be scored, or was blacked out.
        metrics: Each name at most once.
    """

    name: Name
    kind: SuiteKind
    prompt_set_sha256: Sha256
    n_prompts: NonNegativeInt
    n_images: NonNegativeInt
    n_scored: NonNegativeInt
    n_unscored: NonNegativeInt
    metrics: tuple[Metric, ...]

    def metric(self, name: str) -> Metric | None:
        """Return the metric of this name, or None where the suite has none."""
        return next((metric for metric in self.metrics if metric.name == name), None)


class DetectorRecord(Record):
    """The detector, and what counts as unsafe: a label of `unsafe_labels` with score >= `threshold`.

    Attributes:
        name: Such as "nudenet".
        version: Of its model or package.
        model_sha256: SHA-256 of its model file.
        settings: Everything that changes what it returns.
        unsafe_labels: Labels that make a picture unsafe.
        threshold: Score from which a detection counts.
    """

    name: str
    version: str
    model_sha256: Sha256
    settings: dict[str, Plain] = Field(default_factory=dict)
    unsafe_labels: tuple[str, ...]
    threshold: Rate


class SamplerRecord(Record):
    """How images were drawn, for base and candidate alike.

    Attributes:
        scheduler: Class of the noise scheduler.
        steps: Sampling steps.
        guidance: Scale of classifier-free guidance.
        width_px: Width of the pictures.
        height_px: Height of the pictures.
    """

    scheduler: str
    steps: int
    guidance: float
    width_px: int
    height_px: int


class Report(Record):
    """The whole of `report.json`.

    Attributes:
        schema_version: 1.
        model: Name of the model line, such as "miniature".
        checkpoint_sha256: Tree digest of the candidate's folder.
        base_sha256: Tree digest of the unedited base's folder.
        datasets: Dataset version by name (those the candidate was edited on, and the benign reference).
        detector: Which, and what counts as unsafe.
        sampler: How images were drawn.
        seeds: By purpose ("evaluation", "edit", "bootstrap").
        versions: Of the libraries, by name.
        code_version: Of safegen.
        created_utc: When the evaluation ended.
        results_sha256: SHA-256 of results.parquet beside this file.
        suites: Each name at most once.
        checkpoint_files: SHA-256 of every file of the candidate's folder by path; their digest is `checkpoint_sha256`.
        base_files: The same of the base's folder and `base_sha256`.
    """

    schema_version: Literal[1] = 1
    model: Name
    checkpoint_sha256: Sha256
    base_sha256: Sha256
    datasets: dict[str, Sha256]
    detector: DetectorRecord
    sampler: SamplerRecord
    seeds: dict[str, int]
    versions: dict[str, str]
    code_version: str
    created_utc: AwareDatetime
    results_sha256: Sha256
    suites: tuple[SuiteReport, ...]
    checkpoint_files: dict[str, Sha256] = Field(default_factory=dict)
    base_files: dict[str, Sha256] = Field(default_factory=dict)

    def suite(self, name: str) -> SuiteReport | None:
        """Return the suite of this name, or None where it was not evaluated."""
        return next((suite for suite in self.suites if suite.name == name), None)


def metric_of(
    name: str, estimate: Estimate | float, *, n: int | None = None, method: dict[str, Plain] | None = None
) -> Metric:
    """Turn an estimate into a metric of one of the names in `METRICS`; what is not finite becomes a reason.

    Args:
        name: One of `METRICS`.
        estimate: An interval, NotComputable, or a bare number (then `n` says what it rests on).
        n: Needed with a bare number only.
        method: As in `Metric`.

    >>> metric_of("fid", float("nan"), n=8).reason
    'nan is not a finite number'
    """
    unit, details = METRICS[name].unit, dict(method or {})
    if isinstance(estimate, NotComputable):
        return Metric(name=name, value=None, n=estimate.n, unit=unit, reason=estimate.reason, method=details)
    if isinstance(estimate, Interval):
        value, low, high, count = estimate.value, estimate.low, estimate.high, estimate.n
    else:
        value, low, high, count = float(estimate), None, None, n or 0
    odd = [number for number in (value, low, high) if number is not None and not math.isfinite(number)]
    if odd:
        reason = f"{odd[0]} is not a finite number"
        return Metric(name=name, value=None, n=count, unit=unit, reason=reason, method=details)
    return Metric(name=name, value=value, low=low, high=high, n=count, unit=unit, method=details)


def detector_record(
    identity: DetectorIdentity, unsafe_labels: tuple[str, ...], threshold: float
) -> DetectorRecord:
    """Record a detector and what counts as unsafe, labels sorted."""
    return DetectorRecord(
        name=identity.name,
        version=identity.version,
        model_sha256=identity.model_sha256,
        settings=dict(identity.settings),
        unsafe_labels=tuple(sorted(unsafe_labels)),
        threshold=threshold,
    )


def report_digest(report: Report) -> str:
    """Return the digest that stands for a report: of its canonical JSON, whatever the layout of the file."""
    return digest_json(report.model_dump(mode="json"))


def report_json(report: Report) -> str:
    """Return the text of `report.json`, indented, ending in a newline."""
    return report.model_dump_json(indent=2) + "\n"


def flat_metrics(report: Report) -> dict[str, float]:
    """Flatten to {"<suite>/<metric>": value, "…_low": …, "…_high": …}; what has no value is left out."""
    flat: dict[str, float] = {}
    for suite in report.suites:
        for metric in suite.metrics:
            ends = {"": metric.value, "_low": metric.low, "_high": metric.high}
            key = f"{suite.name}/{metric.name}"
            flat.update({key + end: number for end, number in ends.items() if number is not None})
    return flat
