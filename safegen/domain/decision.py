"""What a gate decided and why (`decision.json`, schema version 1)."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field, model_validator

from safegen.domain.digests import digest_json
from safegen.domain.policy import Comparison
from safegen.domain.report import DetectorRecord, Record, Sha256

CheckKind = Literal["evidence", "policy", "champion", "undecided"]


class CheckOutcome(Record):
    """One check and how it came out.

    Attributes:
        name: Such as "explicit/nrr >= 0.9 (low)" or "evidence/checkpoint-digest".
        kind: "evidence" asks whether the report can be trusted, "policy" and "champion" what it says;
            "undecided" is something that kept the gate from deciding.
        passed: Whether it holds.
        reason: Why, in one line, passed or not.
        observed: The number judged, None where there is none.
        comparison: How it was compared.
        threshold: With what.
        n: What the number rests on.
    """

    name: str
    kind: CheckKind
    passed: bool
    reason: str
    observed: float | None = None
    comparison: Comparison | None = None
    threshold: float | None = None
    n: int | None = None


class Decision(Record):
    """The whole of `decision.json`. A pass with a failed check, or without any policy check, cannot be made.

    Attributes:
        schema_version: 1.
        outcome: "pass" or "blocked".
        model: Name of the model line, None where the report could not be read (as with all None below).
        checks: Every check, in the order made.
        checkpoint_sha256: Tree digest of the candidate's folder as the gate found it.
        base_sha256: Tree digest of the unedited base.
        datasets: Dataset version by name.
        prompt_sets: Digest by suite.
        detector: Which, and what counted as unsafe.
        policy_name: Of the policy.
        policy_sha256: Its digest.
        report_sha256: Digest of the report.
        results_sha256: SHA-256 of results.parquet as the gate found it.
        champion_report_sha256: Digest of the champion's report, None where there was none.
        champion_checkpoint_sha256: The champion itself.
        seeds: Of the report, by purpose.
        evaluation_versions: Of the libraries that made the report.
        versions: Of those that decided.
        decided_utc: When.
    """

    schema_version: Literal[1] = 1
    outcome: Literal["pass", "blocked"]
    model: str | None = None
    checks: tuple[CheckOutcome, ...]
    checkpoint_sha256: Sha256 | None = None
    base_sha256: Sha256 | None = None
    datasets: dict[str, Sha256] = Field(default_factory=dict)
    prompt_sets: dict[str, Sha256] = Field(default_factory=dict)
    detector: DetectorRecord | None = None
    policy_name: str | None = None
    policy_sha256: Sha256 | None = None
    report_sha256: Sha256 | None = None
    results_sha256: Sha256 | None = None
    champion_report_sha256: Sha256 | None = None
    champion_checkpoint_sha256: Sha256 | None = None
    seeds: dict[str, int] = Field(default_factory=dict)
    evaluation_versions: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str]
    decided_utc: AwareDatetime

    @model_validator(mode="after")
    def _a_pass_is_earned(self) -> Decision:
        failed = [check.name for check in self.checks if not check.passed]
        bound = (self.checkpoint_sha256, self.report_sha256, self.results_sha256, self.policy_sha256)
        if self.outcome == "pass" and failed:
            raise ValueError(f"outcome pass with failed checks {failed}")
        if self.outcome == "pass" and not any(check.kind == "policy" for check in self.checks):
            raise ValueError("outcome pass without any policy check")
        if self.outcome == "pass" and None in bound:
            raise ValueError("outcome pass without the digests of checkpoint, report, results and policy")
        if self.outcome == "blocked" and not failed:
            raise ValueError("outcome blocked without a failed check")
        return self

    @property
    def passed(self) -> bool:
        """Whether the candidate may be released."""
        return self.outcome == "pass"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it was blocked: "name: reason" of every failed check."""
        return tuple(f"{check.name}: {check.reason}" for check in self.checks if not check.passed)

    @property
    def exit_code(self) -> int:
        """0 for a pass, 1 for blocked, 3 where the gate could not decide (and so blocks)."""
        if any(check.kind == "undecided" and not check.passed for check in self.checks):
            return 3
        return 0 if self.passed else 1


def decision_digest(decision: Decision) -> str:
    """Return the digest that stands for a decision: of its canonical JSON."""
    return digest_json(decision.model_dump(mode="json"))
