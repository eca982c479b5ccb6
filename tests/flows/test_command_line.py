"""The commands as a user runs them: a process of their own, with no Prefect server but what they bring up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from safegen.config import RunConfig
from safegen.pipeline.summary import Summary
from tests.short_run import Workbench

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STEPS = 40
_DEADLINE_S = 200.0


def _command(name: str, config: Path) -> list[str]:
    return [sys.executable, "-m", "safegen", name, "--config", str(config), "--json"]


def _run(name: str, config: Path, exit_code: int) -> tuple[dict, list[str]]:
    """Run a command; return its JSON object and the lines on standard error."""
    done = subprocess.run(
        _command(name, config), capture_output=True, text=True, timeout=_DEADLINE_S, check=False
    )
    assert done.returncode == exit_code, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr.splitlines()


def _reused(document: dict) -> dict[str, bool]:
    return {stage["name"]: stage["reused"] for stage in document["stages"]}


@contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that leads a group of its own; whatever is left of the group is killed."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _progress_of_edit(workspace: Path, process: subprocess.Popen[bytes]) -> Path:
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := list(workspace.glob("edits/*/progress.pt")):
            return found[0]
        time.sleep(0.01)
    pytest.fail(f"the edit made no progress (exit code {process.poll()})")


def test_retrain_exits_1_when_blocked_and_reuses_what_is_there(
    first_run: Summary, workbench: Workbench
) -> None:
    document, lines = _run("retrain", workbench.write_run(), exit_code=1)
    assert document["outcome"] == "blocked"
    assert document["decision"] == json.loads(json.dumps(first_run.decision))
    assert set(_reused(document).values()) == {True}
    assert lines
    assert all(line.startswith("safegen: ") for line in lines)


def test_a_killed_edit_goes_on_where_it_was(
    first_run: Summary, object_server: RunConfig, workbench: Workbench
) -> None:
    from mlflow import MlflowClient

    path = workbench.write_run(steps=STEPS)
    with _started(_command("edit", path)) as process:
        progress = _progress_of_edit(object_server.workspace, process)
    done_before = torch.load(progress, weights_only=True)["step"]
    killed_ms = time.time_ns() // 1_000_000
    run_id = (progress.parent / "run-id").read_text()
    assert 1 <= done_before < STEPS

    document, lines = _run("edit", path, exit_code=0)
    assert _reused(document) == {"ingest": True, "validate": True, "triplets": True, "edit": False}
    assert document["result"]["run_id"] == run_id
    assert not progress.exists()
    # The models were loaded, yet nothing but stages and progress is shown.
    assert all(line.startswith(("safegen: ", "  edit: ")) for line in lines), lines

    client = MlflowClient(f"sqlite:///{object_server.workspace / 'mlflow.db'}")
    history = client.get_metric_history(run_id, "edit/loss")
    steps = sorted(one.step for one in history if one.timestamp > killed_ms)
    assert steps == list(range(done_before + 1, STEPS + 1))
