"""The gate on files: reads and hashes everything itself; whatever it cannot read blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from safegen.domain.checkpoint_files import checkpoint_problems, without_documents
from safegen.domain.decision import CheckOutcome, Decision
from safegen.domain.digests import digest_json, sha256_file, tree_digests
from safegen.domain.documents import parse_document
from safegen.domain.gate import blocked, decide, failed
from safegen.domain.policy import Policy, parse_policy
from safegen.domain.recount import result_disagreements
from safegen.domain.report import Report
from safegen.domain.results import RESULTS_FILE_NAME
from safegen.errors import DataError, SafegenError

Value = TypeVar("Value")


def decide_from_files(
    report_path: Path,
    checkpoint_dir: Path,
    policy_path: Path,
    champion_path: Path | None = None,
    *,
    now: datetime,
    versions: Mapping[str, str],
    results_path: Path | None = None,
) -> Decision:
    """Decide on a candidate from its files.

    Args:
        report_path: report.json.
        checkpoint_dir: The candidate's folder, hashed here; a pulled release counts without its documents.
        policy_path: The policy TOML.
        champion_path: The champion's report.json, None where nothing is released yet.
        now: The time of the decision, with its zone.
        versions: Of what decides, by name.
        results_path: The rows behind the report; None for results.parquet beside it.

    Returns:
        The decision. Nothing here raises for the content of a file or the lack of one.
    """
    problems: list[CheckOutcome] = []

    def attempt(name: str, action: Callable[[], Value]) -> Value | None:
        try:
            return action()
        except Exception as error:  # noqa: BLE001  (whatever it is, it must block)
            problems.append(_problem(name, error))
            return None

    policy = attempt("policy", lambda: read_policy(policy_path))
    report = attempt("report", lambda: read_report(report_path))
    champion = attempt("champion-report", lambda: read_report(champion_path)) if champion_path else None
    checkpoint_digest = attempt("checkpoint-files", lambda: _checked_tree(Path(checkpoint_dir)))
    rows = Path(results_path) if results_path else Path(report_path).parent / RESULTS_FILE_NAME
    results_digest = attempt("results-file", lambda: sha256_file(rows))
    if report is None or policy is None:
        return blocked(problems, now=now, versions=versions)
    if results_digest == report.results_sha256:  # otherwise decide() refuses it: the rows are others'
        attempt("results-rows", lambda: _refuse(result_disagreements(report, rows)))
    return decide(
        report,
        champion,
        policy,
        checkpoint_digest=checkpoint_digest,
        results_digest=results_digest,
        now=now,
        versions=versions,
        earlier=problems,
    )


def read_report(path: Path) -> Report:
    """Read a report.json.

    Raises:
        DataError: It is missing or not a report of a known version.
    """
    return parse_document(Report, read_text(path), what=f"report {path}")


def read_policy(path: Path) -> Policy:
    """Read a policy TOML.

    Raises:
        ConfigError: It is not a policy.
        DataError: It is missing or not text.
    """
    return parse_policy(read_text(path), source=f"policy {path}")


def _checked_tree(folder: Path) -> str:
    digests = tree_digests(folder)
    _refuse(checkpoint_problems(folder, digests))
    return digest_json(without_documents(digests))


def _refuse(problems: list[str]) -> None:
    if problems:
        raise DataError("; ".join(problems))


def read_decision(path: Path) -> Decision:
    """Read a decision.json.

    Raises:
        DataError: It is missing or not a decision of a known version.
    """
    return parse_document(Decision, read_text(path), what=f"decision {path}")


def read_text(path: Path) -> str:
    """Read a document's text.

    Raises:
        DataError: It is missing or not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; expected a UTF-8 text file") from error


def _problem(name: str, error: Exception) -> CheckOutcome:
    text = " ".join(str(error).split())
    if isinstance(error, SafegenError) and error.exit_code == 2:
        return failed(f"evidence/{name}", "evidence", text)
    return failed(f"evidence/{name}", "undecided", f"could not be checked: {type(error).__name__}: {text}")
