"""A decision as JSON, JUnit XML, SARIF 2.1.0 and Markdown, for pipelines and for people."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree as ET

from safegen.domain.decision import CheckOutcome, Decision, decision_digest

_SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_RULES = {
    "evidence": "The report can be trusted and is about this checkpoint",
    "policy": "The report proves what the policy asks",
    "champion": "The candidate is not much worse than the champion",
    "undecided": "The gate could decide",
}
# XML 1.0 cannot hold these, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_json(decision: Decision) -> str:
    """Return the text of `decision.json`, indented, ending in a newline."""
    return decision.model_dump_json(indent=2) + "\n"


def as_junit(decision: Decision) -> str:
    """Return JUnit XML: a test case per check; a failure where it does not hold, an error where undecided."""
    wrong = [check for check in decision.checks if not check.passed]
    errors = sum(check.kind == "undecided" for check in wrong)
    counts = {"tests": str(len(decision.checks)), "failures": str(len(wrong) - errors), "errors": str(errors)}
    suites = ET.Element("testsuites", counts)
    suite = ET.SubElement(
        suites,
        "testsuite",
        {
            "name": "safegen gate",
            "timestamp": decision.decided_utc.isoformat(),
            "time": "0",
            "skipped": "0",
            **counts,
        },
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _summary(decision).items():
        ET.SubElement(properties, "property", {"name": name, "value": _xml_text(value)})
    for check in decision.checks:
        case = ET.SubElement(
            suite,
            "testcase",
            {"classname": f"safegen.gate.{check.kind}", "name": _xml_text(check.name), "time": "0"},
        )
        if not check.passed:
            tag = "error" if check.kind == "undecided" else "failure"
            attributes = {"message": _xml_text(check.reason), "type": check.kind}
            ET.SubElement(case, tag, attributes).text = _xml_text(check.reason)
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def as_sarif(decision: Decision, *, report_uri: str = "report.json", tool_version: str = "1") -> str:
    """Return SARIF 2.1.0: one result per check that does not hold; none for a pass.

    Args:
        decision: The decision.
        report_uri: Where the report lies, relative to the repository; code scanning wants a place per result.
        tool_version: Of safegen.
    """
    rules = [{"id": f"safegen/{kind}", "shortDescription": {"text": text}} for kind, text in _RULES.items()]
    document = {
        "$schema": _SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "safegen gate", "semanticVersion": tool_version, "rules": rules}},
                "invocations": [
                    {
                        "executionSuccessful": decision.exit_code != 3,
                        "exitCode": decision.exit_code,
                        "endTimeUtc": decision.decided_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    }
                ],
                "properties": _summary(decision),
                "results": [
                    _sarif_result(check, report_uri) for check in decision.checks if not check.passed
                ],
            }
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=True) + "\n"


def as_markdown(decision: Decision) -> str:
    """Return a summary for a pull request: the outcome, and a table of all checks, failed ones first."""
    lines = [f"# safegen gate: {decision.outcome}", ""]
    lines += [
        f"- {name}: `{markdown_cell(value)}`"
        for name, value in _summary(decision).items()
        if name != "outcome"
    ]
    lines += ["", "| | check | observed | asked | n | reason |", "|---|---|---|---|---|---|"]
    for check in sorted(decision.checks, key=lambda check: check.passed):
        asked = "" if check.threshold is None else f"{check.comparison} {check.threshold:g}"
        observed = "" if check.observed is None else f"{check.observed:.4g}"
        mark = "pass" if check.passed else "**fail**"
        cells = (mark, check.name, observed, asked, "" if check.n is None else str(check.n), check.reason)
        lines.append("| " + " | ".join([cells[0], *(markdown_cell(cell) for cell in cells[1:])]) + " |")
    return "\n".join(lines) + "\n"


def _summary(decision: Decision) -> dict[str, str]:
    values = {
        "outcome": decision.outcome,
        "model": decision.model,
        "policy": decision.policy_name,
        "checkpoint_sha256": decision.checkpoint_sha256,
        "report_sha256": decision.report_sha256,
        "policy_sha256": decision.policy_sha256,
        "decision_sha256": decision_digest(decision),
        "decided_utc": decision.decided_utc.isoformat(),
    }
    return {name: value for name, value in values.items() if value is not None}


def _sarif_result(check: CheckOutcome, report_uri: str) -> dict[str, object]:
    return {
        "ruleId": f"safegen/{check.kind}",
        "ruleIndex": list(_RULES).index(check.kind),
        "level": "error",
        "message": {"text": f"{check.name}: {check.reason}"},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": report_uri}, "region": {"startLine": 1}}}
        ],
        "partialFingerprints": {"check/v1": check.name},
    }


def _xml_text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def markdown_cell(text: str) -> str:
    """Return a text for a cell of a Markdown table: nothing in it is markup, a link, a mention or another cell."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|`*_\[\]!#~@])", r"\\\1", flat)
