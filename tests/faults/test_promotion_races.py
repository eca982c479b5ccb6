"""Promoters that race for one channel, and what brings registry and channel together afterwards."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from safegen.adapters.folder_store import FolderStore
from safegen.adapters.s3_store import open_s3_store
from safegen.domain.digests import tree_digest
from safegen.domain.gate_files import read_report
from safegen.domain.report import report_json
from safegen.errors import DataError, PreconditionFailedError, ReleaseRefusedError
from safegen.pipeline.promote import CHAMPION_ALIAS, run_promote
from safegen.pipeline.reconcile import run_reconcile
from safegen.ports import ObjectInfo, ObjectStore
from safegen.release.audit import audit_problems, read_audit
from safegen.release.catalogue import list_releases
from safegen.release.channel import list_channels, read_channel
from safegen.stack.control import borrow, s3_access
from tests.signed_releases import MODEL, make_checkpoint, moved, released
from tests.unit.test_gate import Files, files
from tests.unit.test_promote import RegisteredPlatform, candidate, platform, stages

__all__ = ["candidate", "files", "platform"]  # fixtures

PROMOTERS, ROUNDS = 8, 50


class Meeting:
    """A store whose users all wait for each other right before the channel is written, so that all have read it."""

    def __init__(self, inner: ObjectStore, barrier: threading.Barrier) -> None:
        self.inner, self.barrier = inner, barrier

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def put(self, key: str, data: bytes, **conditions: object) -> ObjectInfo:
        if key.startswith("channels/"):
            self.barrier.wait(timeout=60)
        return self.inner.put(key, data, **conditions)


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[ObjectStore]:
    with borrow(tmp_path / "stack", "s3"):
        access = s3_access(tmp_path / "stack", "admin")
        location = replace(access.location, prefix=f"runs/{uuid.uuid4().hex}")
        yield open_s3_store(location, credentials=access.credentials, probe_prefix="probe")


@pytest.fixture(
    params=[
        pytest.param("folder", marks=pytest.mark.slow),
        pytest.param("s3", marks=[pytest.mark.slow, pytest.mark.integration]),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return FolderStore(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("s3")


def race(store: ObjectStore, versions: list[str]) -> list[str]:
    """Let promoters move the channel at once; return the names of those who did."""
    barrier = threading.Barrier(len(versions))

    def promote(number: int) -> str | None:
        try:
            moved(Meeting(store, barrier), "production", versions[number], who=f"promoter-{number}")
        except PreconditionFailedError:
            return None
        return f"promoter-{number}"

    with ThreadPoolExecutor(len(versions)) as pool:
        return [who for who in pool.map(promote, range(len(versions))) if who]


@pytest.mark.timeout(900)
def test_eight_promoters_at_once_have_one_winner_each_time(store: ObjectStore, tmp_path: Path) -> None:
    versions = [
        released(store, make_checkpoint(tmp_path / str(number), attn1=number / 8)).version
        for number in range(3)
    ]
    current = versions[0]
    moved(store, "production", current)
    winners: list[str] = []
    for _ in range(ROUNDS):
        others = [version for version in versions if version != current]
        winner = race(store, (others * PROMOTERS)[:PROMOTERS])
        assert len(winner) == 1, winner
        pointer = read_channel(store, MODEL, "production")
        assert pointer is not None
        assert (pointer.who, pointer.previous) == (winner[0], current)
        current = pointer.version
        winners += winner
    entries = read_audit(store, MODEL)
    assert [entry.who for entry in entries if entry.channel][1:] == winners  # no lost update
    assert audit_problems(store, MODEL, list_releases(store, MODEL), list_channels(store, MODEL)) == ()


def another(candidate: Files, name: str) -> Files:
    """The same evidence about another checkpoint."""
    (candidate.checkpoint / name).touch()
    digest = tree_digest(candidate.checkpoint)
    report = read_report(candidate.report).model_copy(update={"checkpoint_sha256": digest})
    candidate.report.write_text(report_json(report))
    return candidate


def test_reconcile_makes_the_champion_what_the_channel_serves(
    platform: RegisteredPlatform, candidate: Files
) -> None:
    first = run_promote(platform, *stages(candidate))
    assert not run_reconcile(platform).changed
    second = run_promote(platform, *stages(another(candidate, "second")))
    platform.registry.set_alias(
        "miniature", CHAMPION_ALIAS, first.registry_version
    )  # killed before the alias

    found = run_reconcile(platform)
    assert (found.version, found.registry_version, found.before) == (
        second.version,
        second.registry_version,
        first.registry_version,
    )
    assert platform.registry.version_of_alias("miniature", CHAMPION_ALIAS) == second.registry_version
    assert not run_reconcile(platform).changed


def _unsigned(platform: RegisteredPlatform) -> None:
    platform.promoter_store.delete("releases/miniature/1/signature.json")


def _forgotten(platform: RegisteredPlatform) -> None:
    platform.memory.versions.clear()


@pytest.mark.parametrize(("damage", "error"), [(_unsigned, ReleaseRefusedError), (_forgotten, DataError)])
def test_reconcile_moves_nothing_to_what_is_not_proven(
    platform: RegisteredPlatform,
    candidate: Files,
    damage: Callable[[RegisteredPlatform], None],
    error: type[Exception],
) -> None:
    run_promote(platform, *stages(candidate))
    platform.memory.aliases.clear()
    damage(platform)
    with pytest.raises(error):
        run_reconcile(platform)
    assert platform.memory.aliases == {}
