"""This project's own workflows: their steps run here in bash, on a short run in place of the miniature's."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from tests.integration.test_gate_action import Outcome, bash, run_action
from tests.short_run import Workbench, make_workbench

pytestmark = [pytest.mark.integration, pytest.mark.long]

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"


def workflow(name: str) -> dict[str, Any]:
    return yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())


def run_gate(bench: Workbench, policy: Literal["strict", "lenient"]) -> Outcome:
    """Run the gate's workflow from its edit on; `uses` steps of others stay out."""
    variables = {
        "CONFIG": str(bench.write_run(policy=policy)),
        "POLICY": str(bench.folder / f"{policy}.toml"),
    }
    variables |= {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    job = bench.folder / f"job-{policy}"
    job.mkdir()
    assert set(workflow("gate")["env"]) == {"CONFIG", "POLICY"}
    steps = {step.get("id"): step for step in workflow("gate")["jobs"]["miniature"]["steps"]}
    output = job / "candidate-output"
    assert bash(steps["candidate"]["run"], {**variables, "GITHUB_OUTPUT": str(output)}, job) == 0
    made = dict(line.split("=", 1) for line in output.read_text().splitlines())
    found = {f"steps.candidate.outputs.{name}": value for name, value in made.items()}
    found["env.POLICY"] = variables["POLICY"]
    given = {
        name: re.sub(r"\$\{\{ ([\w.]+) \}\}", lambda match: found[match[1]], value)
        for name, value in steps["gate"]["with"].items()
    }
    assert steps["gate"]["uses"] == "./infra/github-action"
    return run_action(given, job)


def test_the_gate_passes_what_is_proven_and_blocks_the_rest(tmp_path: Path) -> None:
    bench = make_workbench(tmp_path)
    passed = run_gate(bench, "lenient")
    assert (passed.exit_code, passed.results["outcome"]) == (0, "pass")
    assert (passed.output / "gate.sarif").is_file()
    blocked = run_gate(bench, "strict")  # of the very same candidate
    assert (blocked.exit_code, blocked.results["outcome"]) == (1, "blocked")
    assert "explicit/nrr" in blocked.summary


def test_ci_runs_what_is_run_here() -> None:
    [*_, last] = workflow("ci")["jobs"]["check"]["steps"]
    assert last["run"] == "bash .ci/run"
    assert (ROOT / ".ci" / "run").is_file()


@pytest.mark.parametrize("name", ["ci", "gate"])
def test_workflows_hold_no_more_rights_than_they_need_and_paste_no_input(name: str) -> None:
    content = workflow(name)
    assert content["permissions"]["contents"] == "read"
    assert "pull_request_target" not in (WORKFLOWS / f"{name}.yml").read_text()
    for job in content["jobs"].values():
        assert job["timeout-minutes"]
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")
            assert re.fullmatch(r"\./[\w/-]+|[\w/-]+@v\d+", step.get("uses", "a@v1"))
