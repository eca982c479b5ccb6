"""The gate as a GitHub action and as a GitLab job: their own steps, run here in bash as those systems run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from tests.unit.test_gate import Files, files

__all__ = ["files"]  # a fixture
pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "infra/github-action/action.yml").read_text())
JOB = yaml.safe_load((ROOT / "infra/gitlab/safegen-gate.yml").read_text())[".safegen-gate"]


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    exit_code: int
    output: Path
    summary: str
    results: dict[str, str]


def bash(script: str, variables: dict[str, str], folder: Path, *, installed: bool = True) -> int:
    """Run a script as both systems do, with `safegen` on the path where it is installed."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    if installed:
        (tools / "safegen").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m safegen "$@"\n')
        (tools / "safegen").chmod(0o755)
    environment = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    (folder / "script.sh").write_text(script)
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(folder / "script.sh")]
    return subprocess.run(command, cwd=folder, env=environment, timeout=250, check=False).returncode


def run_action(inputs: dict[str, str], folder: Path, *, installed: bool = True) -> Outcome:
    given = {name: entry.get("default", "") for name, entry in ACTION["inputs"].items()} | inputs
    files = {name: folder / name for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    code = 0
    for step in ACTION["runs"]["steps"]:
        variables = {
            name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda match: given[match[1]], value)
            for name, value in step["env"].items()
        }
        assert "${{" not in step["run"], "an input pasted into a script could run code"
        code = code or bash(
            step["run"],
            variables | {name: str(path) for name, path in files.items()},
            folder,
            installed=installed,
        )
    lines = files["GITHUB_OUTPUT"].read_text().splitlines()
    results = dict(line.split("=", 1) for line in lines)
    summary = files["GITHUB_STEP_SUMMARY"].read_text()
    return Outcome(code, folder / given["output"], summary, results)


def run_job(inputs: dict[str, str], folder: Path, *, installed: bool = True) -> Outcome:
    given = {f"SAFEGEN_{name.upper()}": value for name, value in inputs.items()}
    variables = {name: str(value) for name, value in JOB["variables"].items()} | given
    code = bash("\n".join(JOB["script"]), variables, folder, installed=installed)
    output = folder / variables["SAFEGEN_OUTPUT"]
    outcome = {"outcome": "blocked" if code else "pass"}
    summary = output / "summary.md"
    return Outcome(code, output, summary.read_text() if summary.is_file() else "", outcome)


Runner = Callable[..., Outcome]
RUNNERS = pytest.mark.parametrize("run", [run_action, run_job], ids=["github", "gitlab"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job").mkdir()
    return tmp_path / "job"


def inputs_of(files: Files, **changes: str) -> dict[str, str]:
    named = {"report": files.report, "checkpoint": files.checkpoint, "policy": files.policy}
    return {name: str(path) for name, path in named.items()} | changes


@RUNNERS
def test_what_is_proven_passes_with_all_its_files(run: Runner, files: Files, folder: Path) -> None:
    champion = files.report.with_name("champion with space.json")
    champion.write_text(files.report.read_text())
    found = run(inputs_of(files, champion=str(champion), output="out of gate"), folder)
    assert (found.exit_code, found.results["outcome"]) == (0, "pass")
    assert json.loads((found.output / "decision.json").read_text())["champion_report_sha256"]
    assert "# safegen gate: pass" in found.summary
    assert ET.parse(found.output / "junit.xml").getroot().get("failures") == "0"
    assert json.loads((found.output / "gate.sarif").read_text())["runs"][0]["results"] == []


@RUNNERS
def test_what_was_altered_after_its_evaluation_is_blocked(run: Runner, files: Files, folder: Path) -> None:
    (files.checkpoint / "model_index.json").write_text("{} ")
    found = run(inputs_of(files), folder)
    assert (found.exit_code, found.results["outcome"]) == (1, "blocked")
    assert "# safegen gate: blocked" in found.summary
    assert ET.parse(found.output / "junit.xml").getroot().get("failures") != "0"
    assert json.loads((found.output / "gate.sarif").read_text())["runs"][0]["results"]


@RUNNERS
@pytest.mark.parametrize("missing", ["report", "checkpoint", "policy", "champion"])
def test_a_gate_that_cannot_decide_blocks(run: Runner, files: Files, folder: Path, missing: str) -> None:
    found = run(inputs_of(files, **{missing: str(folder / "nowhere")}), folder)
    assert found.exit_code in (1, 2, 3)
    assert found.results["outcome"] == "blocked"


@RUNNERS
def test_a_gate_that_is_not_installed_blocks_whatever_an_earlier_job_left(
    run: Runner, files: Files, folder: Path
) -> None:
    (folder / "safegen-gate").mkdir()
    (folder / "safegen-gate" / "decision.json").write_text('{"outcome": "pass"}')
    found = run(inputs_of(files), folder, installed=False)
    assert (found.exit_code, found.results["outcome"]) == (127, "blocked")
    assert not (found.output / "decision.json").exists()


@RUNNERS
def test_a_file_name_runs_no_code(run: Runner, files: Files, folder: Path) -> None:
    found = run(inputs_of(files, report='$(touch here); "; touch here; #'), folder)
    assert found.exit_code != 0
    assert not os.path.lexists(folder / "here")


def test_the_gitlab_job_may_not_fail_unseen() -> None:
    assert JOB["allow_failure"] is False
    assert JOB["artifacts"]["when"] == "always"
