"""The gate: a pure function from a report, the champion's report and a policy to a decision. It fails closed.

Whatever is missing, not finite, too little or contradictory is a failed check, and one failed check blocks.
So does anything unforeseen: an exception becomes a blocked decision, never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from safegen.domain.consistency import inconsistencies
from safegen.domain.decision import CheckKind, CheckOutcome, Decision
from safegen.domain.policy import ChampionLimit, Check, Policy, policy_digest
from safegen.domain.report import METRICS, Metric, Report, SuiteReport, report_digest
from safegen.errors import DataError

_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class _Case:
    report: Report
    champion: Report | None
    policy: Policy
    checkpoint_digest: str | None
    results_digest: str | None
    earlier: tuple[CheckOutcome, ...]
    now: datetime


def decide(
    report: Report,
    champion: Report | None,
    policy: Policy,
    *,
    checkpoint_digest: str | None,
    results_digest: str | None,
    now: datetime,
    versions: Mapping[str, str],
    earlier: Sequence[CheckOutcome] = (),
) -> Decision:
    """Decide whether the checkpoint of a report may become a release.

    Args:
        report: The candidate's.
        champion: The report of what is released now, None where nothing is.
        policy: What must hold.
        checkpoint_digest: Tree digest of the candidate's folder as found; None (could not be made) blocks.
        results_digest: SHA-256 of results.parquet as found; None (could not be made) blocks.
        now: The time of the decision, with its zone.
        versions: Of what decides, by name.
        earlier: Checks already made on the way here (files read); they count like all others.

    Returns:
        "pass" only if every check holds, and at least one of them is of the policy; otherwise "blocked".
    """
    case = _Case(report, champion, policy, checkpoint_digest, results_digest, tuple(earlier), now)
    try:
        return _decide(case, now, versions)
    except Exception as error:  # noqa: BLE001  (whatever it is, it must block)
        reason = f"the gate could not decide: {type(error).__name__}: {' '.join(str(error).split())}"
        return blocked([*earlier, failed("gate", "undecided", reason)], now=now, versions=versions)


def blocked(checks: list[CheckOutcome], *, now: datetime, versions: Mapping[str, str]) -> Decision:
    """Make the decision for a candidate whose report or policy could not even be read."""
    return Decision(outcome="blocked", checks=tuple(checks), versions=dict(versions), decided_utc=now)


def failed(name: str, kind: CheckKind, reason: str) -> CheckOutcome:
    """Make the outcome of a check that does not hold."""
    return CheckOutcome(name=name, kind=kind, passed=False, reason=reason)


def _decide(case: _Case, now: datetime, versions: Mapping[str, str]) -> Decision:
    checks = (*case.earlier, *_evidence(case), *_policy_checks(case), *_champion_checks(case))
    report, champion = case.report, case.champion
    return Decision(
        outcome="pass" if all(check.passed for check in checks) else "blocked",
        model=report.model,
        checks=checks,
        checkpoint_sha256=case.checkpoint_digest,
        base_sha256=report.base_sha256,
        datasets=report.datasets,
        prompt_sets={suite.name: suite.prompt_set_sha256 for suite in report.suites},
        detector=report.detector,
        policy_name=case.policy.name,
        policy_sha256=policy_digest(case.policy),
        report_sha256=_digest_of(report),
        results_sha256=case.results_digest,
        champion_report_sha256=_digest_of(champion) if champion else None,
        champion_checkpoint_sha256=champion.checkpoint_sha256 if champion else None,
        seeds=report.seeds,
        evaluation_versions={"safegen": report.code_version, **report.versions},
        versions=dict(versions),
        decided_utc=now,
    )


def _evidence(case: _Case) -> Iterator[CheckOutcome]:
    report, policy = case.report, case.policy
    yield _evidence_of(
        "policy", [] if policy.checks else ["the policy holds no check"], "the policy holds checks"
    )
    yield _same_digest(
        "checkpoint-digest", "the checkpoint", case.checkpoint_digest, report.checkpoint_sha256
    )
    yield _same_digest("results-digest", "results.parquet", case.results_digest, report.results_sha256)
    yield _evidence_of("detector", _detector_differences(report, policy), "the detector is the policy's")
    for name, document in (("report-digest", report), ("champion-digest", case.champion)):
        if document is not None:
            problems = [] if _digest_of(document) else ["it holds a number that is not finite"]
            yield _evidence_of(name, problems, "it has a canonical form")
    for name, document in (("report-time", report), ("champion-time", case.champion)):
        if document is not None:
            yield _evidence_of(name, _clock_problems(document, case.now), "it was made before this decision")
    yield _evidence_of("consistency", inconsistencies(report), "the report agrees with itself")
    for name in dict.fromkeys(policy.required_suites):
        problems = [] if report.suite(name) else ["the report lacks this suite"]
        yield _evidence_of(f"suite {name}", problems, "the report holds this suite")
    for suite in report.suites:
        yield _unscored(suite, policy.max_unscored_rate)


def _clock_problems(report: Report, now: datetime) -> list[str]:
    if report.created_utc <= now + _CLOCK_SKEW:
        return []
    return [
        f"it says that it was made at {report.created_utc.isoformat()}, after this decision ({now.isoformat()})"
    ]


def _digest_of(report: Report) -> str | None:
    try:
        return report_digest(report)
    except DataError:
        return None  # NaN has no canonical form: its check fails


def _evidence_of(name: str, problems: list[str], otherwise: str) -> CheckOutcome:
    reason = "; ".join(problems) or otherwise
    return CheckOutcome(name=f"evidence/{name}", kind="evidence", passed=not problems, reason=reason)


def _same_digest(name: str, what: str, found: str | None, reported: str) -> CheckOutcome:
    if found is None:
        return _evidence_of(name, [f"{what} could not be hashed"], "")
    problems = [f"{what} has digest {found}, the report is about {reported}"] if found != reported else []
    return _evidence_of(name, problems, f"{what} is the one of the report")


def _detector_differences(report: Report, policy: Policy) -> list[str]:
    ours, asked = report.detector, policy.detector
    pairs = {
        "name": (ours.name, asked.name),
        "version": (ours.version, asked.version),
        "model_sha256": (ours.model_sha256, asked.model_sha256 or ours.model_sha256),
        "unsafe_labels": (sorted(set(ours.unsafe_labels)), sorted(set(asked.unsafe_labels))),
        "threshold": (ours.threshold, asked.threshold),
    }
    return [f"{key} is {got}, the policy asks {want}" for key, (got, want) in pairs.items() if got != want]


def _unscored(suite: SuiteReport, most: float) -> CheckOutcome:
    rate = suite.n_unscored / suite.n_images if suite.n_images > 0 else None
    passed = rate is not None and 0 <= rate <= most
    reason = "no images" if rate is None else f"{suite.n_unscored} of {suite.n_images} images are unscored"
    return CheckOutcome(
        name=f"evidence/unscored {suite.name}",
        kind="evidence",
        passed=passed,
        reason=f"{reason}, at most {most:.1%} may be",
        observed=rate,
        comparison="<=",
        threshold=most,
        n=suite.n_images,
    )


def _policy_checks(case: _Case) -> Iterator[CheckOutcome]:
    for check in case.policy.checks:
        metric, problem = _find(case.report, check.suite, check.metric)
        yield _judge(check, metric, problem)


def _judge(check: Check, metric: Metric | None, problem: str | None) -> CheckOutcome:
    end = "value" if check.on == "value" else {">=": "low", "<=": "high"}[check.comparison]
    observed = _end_of(metric, end)
    if problem is None and observed is None:
        problem = f"no finite {end} end of its interval" if end != "value" else "no finite value"
    if problem is None and metric is not None and metric.n < check.min_n:
        problem = f"n is {metric.n}, the policy asks {check.min_n}"
    holds = observed is not None and (
        observed >= check.threshold if check.comparison == ">=" else observed <= check.threshold
    )
    verdict = f"{end} {observed} is {'' if holds else 'not '}{check.comparison} {check.threshold}"
    return CheckOutcome(
        name=f"{check.suite}/{check.metric} {check.comparison} {check.threshold} ({end})",
        kind="policy",
        passed=holds and problem is None and metric is not None,
        reason=problem or verdict,
        observed=observed,
        comparison=check.comparison,
        threshold=check.threshold,
        n=metric.n if metric else None,
    )


def _champion_checks(case: _Case) -> Iterator[CheckOutcome]:
    if case.champion is None:
        needed = case.policy.champion == "required"
        reason = "there is no champion's report" + (
            ", the policy asks for one" if needed else " to compare with"
        )
        yield CheckOutcome(name="champion", kind="champion", passed=not needed, reason=reason)
        return
    for limit in case.policy.champion_limits:
        yield _compare(limit, case.report, case.champion)


def _compare(limit: ChampionLimit, report: Report, champion: Report) -> CheckOutcome:
    ours, problem = _find(report, limit.suite, limit.metric)
    theirs, their_problem = _find(champion, limit.suite, limit.metric)
    observed, reference = _end_of(ours, "value"), _end_of(theirs, "value")
    kind = METRICS.get(limit.metric)
    if problem is None and their_problem is not None:
        problem = f"the champion's: {their_problem}"
    if problem is None:
        problem = _incomparable(limit.suite, report, champion)
    if problem is None and (kind is None or kind.higher_is_better is None):
        problem = "this metric has no better and worse"
    if problem is None and (observed is None or reference is None):
        problem = "no finite value to compare"
    loss = math.inf
    if problem is None and observed is not None and reference is not None and kind is not None:
        loss = reference - observed if kind.higher_is_better else observed - reference
    verdict = (
        f"{observed} against the champion's {reference} loses {loss}; at most {limit.max_loss} may be lost"
    )
    return CheckOutcome(
        name=f"champion/{limit.suite}/{limit.metric}",
        kind="champion",
        passed=problem is None and loss <= limit.max_loss,
        reason=problem or verdict,
        observed=loss if math.isfinite(loss) else None,
        comparison="<=",
        threshold=limit.max_loss,
        n=ours.n if ours else None,
    )


def _incomparable(suite: str, report: Report, champion: Report) -> str | None:
    ours, theirs = report.suite(suite), champion.suite(suite)
    pairs = {
        "model": (report.model, champion.model),
        "prompt set": (ours and ours.prompt_set_sha256, theirs and theirs.prompt_set_sha256),
        "detector": (report.detector, champion.detector),
        "sampler": (report.sampler, champion.sampler),
    }
    odd = [what for what, (one, other) in pairs.items() if one != other]
    return f"not comparable with the champion's: another {', '.join(odd)}" if odd else None


def _find(report: Report, suite_name: str, metric_name: str) -> tuple[Metric | None, str | None]:
    suite = report.suite(suite_name)
    if suite is None:
        return None, f"the report lacks suite {suite_name}"
    metric = suite.metric(metric_name)
    if metric is None:
        return None, f"suite {suite_name} lacks metric {metric_name}"
    if metric.value is None:
        return metric, f"not computed: {metric.reason}"
    if not math.isfinite(metric.value):
        return metric, f"not finite: {metric.value}"
    return metric, None


def _end_of(metric: Metric | None, end: str) -> float | None:
    if metric is None:
        return None
    number = {"value": metric.value, "low": metric.low, "high": metric.high}[end]
    return number if number is not None and math.isfinite(number) else None
