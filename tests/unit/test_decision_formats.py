from __future__ import annotations

import json
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import pytest

from safegen.domain.decision import CheckOutcome, Decision
from safegen.domain.decision_formats import as_json, as_junit, as_markdown, as_sarif

NASTY = 'a <b> & "c" ]]> \x00\x1b[31m\n| d | `e` [x](http://y) @all \U0001f600'
PASSED = CheckOutcome(
    name="explicit/nrr >= 0.9 (low)",
    kind="policy",
    passed=True,
    reason="low 0.95 is >= 0.9",
    observed=0.95,
    comparison=">=",
    threshold=0.9,
    n=200,
)
FAILED = CheckOutcome(name=NASTY, kind="evidence", passed=False, reason=NASTY)
UNDECIDED = CheckOutcome(name="gate", kind="undecided", passed=False, reason="disk")


def decision_of(*checks: CheckOutcome) -> Decision:
    digests = {f"{name}_sha256": "a" * 64 for name in ("checkpoint", "report", "results", "policy")}
    outcome = "pass" if all(check.passed for check in checks) else "blocked"
    return Decision(
        outcome=outcome,
        model="miniature",
        checks=checks,
        versions={"safegen": "1.0"},
        decided_utc=datetime(2026, 11, 1, tzinfo=UTC),
        **digests,
    )


def test_json_is_the_whole_decision() -> None:
    decision = decision_of(PASSED, FAILED)
    assert Decision.model_validate_json(as_json(decision)) == decision


def test_junit_counts_and_escapes() -> None:
    root = ET.fromstring(as_junit(decision_of(PASSED, FAILED, UNDECIDED)))
    suite = root.find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    failures = suite.findall("testcase/failure")
    assert len(failures) == 1
    assert len(suite.findall("testcase/error")) == 1
    assert failures[0].text == NASTY.replace("\x00", "\ufffd").replace("\x1b", "\ufffd")
    assert suite.find("properties/property[@name='checkpoint_sha256']") is not None


def test_sarif_holds_a_result_for_every_failure() -> None:
    document = json.loads(as_sarif(decision_of(PASSED, FAILED, UNDECIDED), report_uri="eval/report.json"))
    assert document["version"] == "2.1.0"
    run = document["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert [result["ruleId"] for result in run["results"]] == ["safegen/evidence", "safegen/undecided"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        location = result["locations"][0]["physicalLocation"]
        assert location["artifactLocation"]["uri"] == "eval/report.json"
    assert run["results"][0]["message"]["text"] == f"{NASTY}: {NASTY}"
    assert run["invocations"][0]["exitCode"] == 3
    assert run["invocations"][0]["executionSuccessful"] is False


def test_sarif_of_a_pass_holds_no_result() -> None:
    run = json.loads(as_sarif(decision_of(PASSED)))["runs"][0]
    assert run["results"] == []
    assert run["invocations"][0]["exitCode"] == 0


def test_markdown_is_one_table_whatever_a_reason_holds() -> None:
    lines = as_markdown(decision_of(PASSED, FAILED)).splitlines()
    assert lines[0] == "# safegen gate: blocked"
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert all(line.replace("\\|", "").count("|") == 7 for line in table)
    assert "**fail**" in table[2]
    assert "<b>" not in "".join(table)
    assert "[x](" not in "".join(table)
    assert "| 0.95 | >= 0.9 | 200 |" in table[3].replace("&gt;", ">")


@pytest.mark.parametrize("render", [as_json, as_junit, as_sarif, as_markdown])
def test_a_decision_about_nothing_readable_renders(render) -> None:
    nothing = Decision(
        outcome="blocked", checks=(UNDECIDED,), versions={}, decided_utc=datetime(2026, 11, 1, tzinfo=UTC)
    )
    assert "disk" in render(nothing)
