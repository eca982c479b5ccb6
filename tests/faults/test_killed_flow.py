"""A run that is killed over and over, each time at a further point, ends as one that nobody disturbed.

Nothing in the product helps: the test watches the workspace from outside and sends SIGKILL to the whole process group
as soon as a file appears that marks the point. One workspace suffers all kills, so that what a killed run left is what
the next one has to go on from. In CI it is killed at every fifth point; `make soak` takes them all.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from safegen.adapters.folder_store import FolderStore
from safegen.adapters.signing import ModelVerifier
from safegen.adapters.signing_keys import read_public_key
from safegen.config import load_config
from safegen.domain.gate_files import read_report
from safegen.release.audit import audit_problems, read_audit
from safegen.release.catalogue import list_releases
from safegen.release.channel import list_channels
from safegen.release.verify import verify_stored
from tests.short_run import Workbench, make_workbench

pytestmark = [pytest.mark.integration, pytest.mark.long]

POINTS = {
    "mid-ingest": "store/blobs/sha256/*/*",
    "ingest: manifest there, result not kept": "store/datasets/emoji/*/manifest.parquet",
    "validate: Data Docs half written": "data-docs/*/**/*.html",
    "triplets: manifest there, result not kept": "store/datasets/emoji-triplets/*/manifest.parquet",
    "edit begun": "edits/*/run-id",
    "mid-edit, between steps": "edits/*/progress.pt",
    "edit: checkpoint half written": "edits/*/checkpoint.part",
    "edit: checkpoint there, delta not": "edits/*/checkpoint/unet/*.safetensors",
    "mid-evaluation: a shard drawn": "**/000000-0000*.parquet",
    "evaluation: rows there, report not": "evaluations/*/results.parquet",
    "evaluation: report there, result not kept": "evaluations/*/report.json",
    "gate: decision there, result not kept": "evaluations/*/decision-*.json",
    "report: page there": "evaluations/*/report.html",
    "promotion: key made": "keys/release.key",
    "promotion: decision uploaded": "store/releases/short/1/decision.json",
    "promotion: signed, not committed": "store/releases/short/1/signature.json",
    "promotion: committed, not recorded": "store/releases/short/1/manifest.json",
    "promotion: recorded, channel not moved": "store/audit/short/*.json",
    "promotion: channel moved, alias not": "store/channels/short/production.json",
}
_DEADLINE_S = 600.0
_EVERY = int(os.environ.get("SAFEGEN_KILL_EVERY", "5"))
_LEAST_KILLS = 12 if _EVERY == 1 else 3


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    document: dict
    reused: dict[str, bool]


def start(config: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "safegen", "retrain", "--config", str(config), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def run(config: Path) -> Ended:
    process = start(config)
    out, _ = process.communicate(timeout=_DEADLINE_S)
    document = json.loads(out.splitlines()[-1])
    stages = {stage["name"]: stage["reused"] for stage in document.get("stages", [])}
    return Ended(process.returncode, document, stages)


def kill_at(config: Path, workspace: Path, pattern: str) -> None:
    """Start a run and end it without warning once a file of this pattern is there."""
    process = start(config)
    deadline = time.monotonic() + _DEADLINE_S
    try:
        while not any(workspace.glob(pattern)):
            assert process.poll() is None, f"the run ended before there was any {pattern}"
            assert time.monotonic() < deadline, f"no {pattern} within {_DEADLINE_S} s"
            time.sleep(0.01)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def evidence(report: Path) -> dict:
    """A report without what tells one evaluation of the same from another: its time."""
    return read_report(report).model_dump(mode="json", exclude={"created_utc", "results_sha256"})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return make_workbench(tmp_path_factory.mktemp("killed"))


def require_nothing_half_made(workspace: Path) -> None:
    """What a reader sees after a kill: no release, or one that is proven; a channel that leads to one."""
    store = FolderStore(workspace / "store")
    for manifest in list_releases(store, "short"):
        verifier = ModelVerifier([read_public_key(workspace / "keys" / "release.pub")])
        assert verify_stored(store, "short", manifest.version, verifier).valid
    for channel in list_channels(store, "short"):
        assert channel.version in {one.version for one in list_releases(store, "short")}


@pytest.mark.timeout(3000)
def test_killed_at_every_point_it_ends_as_undisturbed(bench: Workbench) -> None:
    undisturbed = run(bench.write_run("undisturbed", policy="lenient", store="folder"))
    assert undisturbed.code == 0

    config = bench.write_run("killed", policy="lenient", store="folder")
    workspace = load_config(config).workspace
    killed = [
        name for name, pattern in list(POINTS.items())[::_EVERY] if _killed_at(config, workspace, pattern)
    ]
    assert len(killed) >= _LEAST_KILLS, killed

    last = run(config)
    assert last.code == 0
    assert last.reused.pop("promote") in {True, False}
    assert all(last.reused.values()), last.reused  # finished work is not done again

    ours, theirs = (one.document for one in (last, undisturbed))
    assert ours["decision"]["checkpoint_sha256"] == theirs["decision"]["checkpoint_sha256"]
    assert evidence(Path(ours["where"]["report"])) == evidence(Path(theirs["where"]["report"]))
    assert ours["release"]["version"] == theirs["release"]["version"] == "1"

    store = FolderStore(workspace / "store")
    assert [entry.action for entry in read_audit(store, "short")] == ["publish", "promote"]
    assert audit_problems(store, "short", list_releases(store, "short"), list_channels(store, "short")) == ()
    assert run(config).reused["promote"]


def _killed_at(config: Path, workspace: Path, pattern: str) -> bool:
    """Kill a run at a point; one that an earlier run went past before its signal arrived is left out."""
    if any(workspace.glob(pattern)):
        return False
    kill_at(config, workspace, pattern)
    require_nothing_half_made(workspace)
    return True
