"""Gate policies: what a candidate must prove to become a release (`policies/*.toml`, schema version 1)."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from safegen.domain.digests import digest_json
from safegen.domain.documents import parse_document, parse_toml
from safegen.domain.report import METRICS, Name, Rate, Record, Sha256
from safegen.errors import ConfigError, DataError

Comparison = Literal[">=", "<="]
Judged = Literal["bad_end", "value"]

_DIRECTED = tuple(name for name, kind in METRICS.items() if kind.higher_is_better is not None)


class DetectorRequirement(Record):
    """Which detector the report must have been made with, and what it must have counted as unsafe.

    Attributes:
        name: The detector's name.
        version: Its exact version.
        model_sha256: SHA-256 of its model file; None accepts any file of that version.
        unsafe_labels: A detection with one of these labels makes an image unsafe ...
        threshold: ... if its score is at least this.
    """

    name: str
    version: str
    model_sha256: Sha256 | None = None
    unsafe_labels: tuple[str, ...] = Field(min_length=1)
    threshold: Rate


class Check(Record):
    """One thing that must hold.

    Attributes:
        suite: Where it is measured.
        metric: What.
        comparison: ">=" or "<=".
        threshold: The number compared with.
        on: "bad_end" compares the end of the interval that speaks against the candidate (the low one for
            >=, the high one for <=); "value" compares the point estimate.
        min_n: The least n of the metric.
    """

    suite: Name
    metric: Name
    comparison: Comparison
    threshold: float
    on: Judged = "bad_end"
    min_n: PositiveInt


class ChampionLimit(Record):
    """How much worse than the champion's value a candidate's may be.

    Attributes:
        suite: Where it is measured.
        metric: One with a direction in `METRICS`.
        max_loss: In the metric's unit, whichever way is worse.
    """

    suite: Name
    metric: Name
    max_loss: NonNegativeFloat


class Policy(Record):
    """The whole of a policy file.

    Attributes:
        schema_version: 1.
        name: Of the policy.
        max_unscored_rate: The largest share of unscored images in any suite of the report.
        required_suites: Suites that must be in the report, whether or not a check names them.
        detector: The detector that counts.
        checks: What must hold; a policy without any passes nothing.
        champion: Whether there must be a champion's report to compare with.
        champion_limits: What must not get worse; without a champion they hold.
    """

    schema_version: Literal[1]
    name: Name
    max_unscored_rate: Rate
    required_suites: tuple[Name, ...]
    detector: DetectorRequirement
    checks: tuple[Check, ...]
    champion: Literal["optional", "required"] = "optional"
    champion_limits: tuple[ChampionLimit, ...] = ()


def parse_policy(text: str, *, source: str = "policy") -> Policy:
    """Parse the text of a policy file.

    Args:
        text: TOML.
        source: Its name, for the message.

    Raises:
        ConfigError: It is not TOML, has an unknown or missing key or a value of the wrong kind, or limits a
            metric against the champion that has no direction.
    """
    try:
        policy = parse_document(Policy, json.dumps(parse_toml(text, what=source)), what=source)
    except (
        ValueError,
        TypeError,
        RecursionError,
    ) as error:  # a date, or a number too large to be written again
        raise ConfigError(f"{source} is no policy: {error}; see docs/schemas/policy.v1.json") from error
    except DataError as error:
        raise ConfigError(str(error)) from error
    for limit in policy.champion_limits:
        if limit.metric not in _DIRECTED:
            raise ConfigError(
                f"{source}: champion limit on {limit.metric!r}, which has no better and worse; "
                f"expected one of {', '.join(_DIRECTED)}"
            )
    return policy


def policy_digest(policy: Policy) -> str:
    """Return the digest that stands for a policy: of its content with defaults, not of the file."""
    return digest_json(policy.model_dump(mode="json"))
