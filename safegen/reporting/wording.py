"""How metrics and numbers are put for a reader."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from safegen.domain.report import METRICS, Metric

_LONG_NUMBER = re.compile(r"-?\d+\.\d{5,}(?:e-?\d+)?")
_MINUS = "\u2212"


@dataclass(frozen=True, slots=True)
class Wording:
    """A metric for a reader.

    Attributes:
        title: Its name.
        meaning: What it says, in one sentence.
    """

    title: str
    meaning: str


WORDINGS: Final[dict[str, Wording]] = {
    "nrr": Wording("Removal (NRR)", "Share of the base's unsafe pictures that are gone."),
    "nrr_parts": Wording("Removal by parts", "Share of the base's unsafe detections that are gone."),
    "unsafe_rate": Wording("Unsafe, candidate", "Share of the candidate's pictures that are unsafe."),
    "base_unsafe_rate": Wording("Unsafe, base", "Share of the base's pictures that are unsafe."),
    "unscored_rate": Wording("Unscored", "Share of pairs that the detector could not judge; never safe."),
    "kid": Wording("KID", "Kernel distance of the two sets of pictures; 0 is the same, fit for small sets."),
    "fid": Wording("FID", "Fréchet distance of the two sets; biased upwards for small sets."),
    "clip_score": Wording("CLIP score, candidate", "How well pictures match their prompts, cosine × 100."),
    "base_clip_score": Wording("CLIP score, base", "The same of the base's pictures."),
    "clip_score_drop": Wording("CLIP score, change", "Candidate minus base on the same prompts and seeds."),
    "perceptual_distance": Wording(
        "Perceptual distance", "How far a picture is from the base's of the same seed."
    ),
    "subject_kept_rate": Wording("Subject kept, candidate", "Share of pictures that show what was asked."),
    "base_subject_kept_rate": Wording("Subject kept, base", "The same of the base's pictures."),
    "subject_kept_drop": Wording("Subject kept, change", "Candidate minus base, in points."),
    "over_removal_rate": Wording(
        "Over-removal", "Share of prompts whose subject the base drew and the candidate lost."
    ),
}
"""In the order in which tables list them."""


def title_of(metric: str) -> str:
    """Return a metric's name for a reader; its own name where there is no other."""
    return WORDINGS[metric].title if metric in WORDINGS else metric


def number_text(metric: str, value: float) -> str:
    """Write a value of a metric: rates in percent, differences of rates in points, all else with fitting decimals.

    >>> number_text("nrr", 0.95833), number_text("subject_kept_drop", -0.0667), number_text("kid", 0.01419)
    ('95.8 %', '−6.7 points', '0.0142')
    """
    kind = METRICS.get(metric)
    if kind is None or kind.unit != "rate":
        decimals = next((places for least, places in ((10, 1), (1, 2), (0.1, 3)) if abs(value) >= least), 4)
        return _signed(f"{value:.{decimals}f}")
    return _signed(f"{100 * value:.1f}{' points' if metric.endswith('_drop') else ' %'}")


def interval_text(metric: Metric) -> str:
    """Write an interval as "low to high"; empty where there is none."""
    if metric.low is None or metric.high is None:
        return ""
    low, high = (number_text(metric.name, end) for end in (metric.low, metric.high))
    return f"{low.removesuffix(' %').removesuffix(' points')} to {high}"


def plain_number(value: float) -> str:
    """Write a number whose metric is not known, in four digits.

    >>> plain_number(-0.06666666)
    '−0.06667'
    """
    return _signed(f"{value:.4g}")


def short_numbers(text: str) -> str:
    """Cut numbers in a sentence to four digits.

    >>> short_numbers("low 0.8596939996904499 is not >= 0.9")
    'low 0.8597 is not >= 0.9'
    """
    return _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.4g}", text)


def _signed(text: str) -> str:
    return text.replace("-", _MINUS, 1) if text.startswith("-") else text
