"""Tricks on releases and channels by somebody who can write to the store, but has no trusted key."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from safegen.adapters.decision_signature import DecisionVerifier, sign_decision
from safegen.adapters.folder_store import FolderStore
from safegen.adapters.memory_kms import MemoryKmsKey
from safegen.adapters.signing import ModelSigner
from safegen.domain.decision_formats import as_json
from safegen.domain.digests import tree_digest
from safegen.domain.gate_files import read_report
from safegen.domain.release import DECISION, SIGNATURE, Channel, utc_text
from safegen.domain.report import report_json
from safegen.errors import DataError, ReleaseRefusedError, StorageError
from safegen.pipeline.gate import champion_report, require_current
from safegen.pipeline.outcomes import Decided
from safegen.pipeline.promote import run_promote
from safegen.release.audit import audit_problems, read_audit
from safegen.release.catalogue import list_releases, read_manifest
from safegen.release.channel import list_channels, read_channel
from tests.signed_releases import (
    MODEL,
    full_decision,
    make_checkpoint,
    moved,
    pulled,
    released,
    rolled_back,
)
from tests.unit.test_gate import Files, files
from tests.unit.test_promote import RegisteredPlatform, candidate, platform, stages

__all__ = ["candidate", "files", "platform"]  # fixtures

STRANGER = MemoryKmsKey()
POINTER = f"channels/{MODEL}/production.json"


@pytest.fixture
def two(tmp_path: Path) -> FolderStore:
    store = FolderStore(tmp_path / "store")
    for number in (1, 2):
        version = released(store, make_checkpoint(tmp_path / str(number), attn1=number / 2)).version
        moved(store, "production", version)
    return store


def test_a_replayed_channel_pointer_is_refused(two: FolderStore, tmp_path: Path) -> None:
    new = two.get(POINTER)
    old = Channel(
        model=MODEL,
        channel="production",
        version="1",
        digest=read_manifest(two, MODEL, "1").digest,
        previous=None,
        **{name: getattr(read_audit(two, MODEL)[1], name) for name in ("utc", "who", "why")},
    )
    two.put(POINTER, old.to_bytes())
    with pytest.raises(StorageError, match=r"ci moved it to version 2 .* an old pointer was put back"):
        pulled(two, "production", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert audit_problems(two, MODEL, list_releases(two, MODEL), list_channels(two, MODEL)) == ()

    rolled_back(two, "2", why="an old pointer was put back")  # as the message advises
    assert pulled(two, "production", tmp_path / "out").version == "2"
    two.put(POINTER, new)
    with pytest.raises(StorageError, match="an old pointer was put back"):
        pulled(two, "production", tmp_path / "other")


def test_a_forged_pointer_without_an_entry_shows_in_the_audit(two: FolderStore) -> None:
    forged = read_channel(two, MODEL, "production")
    assert forged is not None
    digest = read_manifest(two, MODEL, "1").digest
    late = utc_text(datetime.now(UTC) + timedelta(days=1))
    two.put(POINTER, forged.model_copy(update={"version": "1", "digest": digest, "utc": late}).to_bytes())
    problems = audit_problems(two, MODEL, list_releases(two, MODEL), list_channels(two, MODEL))
    assert problems == (f"the last move of {MODEL}@production has no entry",)


def test_a_clock_that_stands_behind_does_not_turn_the_order_of_moves(two: FolderStore) -> None:
    """Somebody moved the channel with a clock a day ahead; the next move still counts as the later one."""
    ahead = read_channel(two, MODEL, "production")
    assert ahead is not None
    ahead = ahead.model_copy(update={"utc": utc_text(datetime.now(UTC) + timedelta(days=1))})
    two.put(POINTER, ahead.to_bytes())
    back = rolled_back(two, "1")
    assert back.utc > ahead.utc
    assert pulled(two, "production", Path(two.uri.removeprefix("file://")).parent / "out").version == "1"


def test_an_audit_entry_that_is_overwritten_is_told(two: FolderStore) -> None:
    """The promoter's access can overwrite an entry: no server hinders it, but the chain shows it."""
    entry = read_audit(two, MODEL)[0]
    two.put(entry.key, entry.model_copy(update={"who": "nobody"}).to_bytes())
    assert audit_problems(two, MODEL, list_releases(two, MODEL), list_channels(two, MODEL))


def test_no_rollback_to_an_unsigned_version(two: FolderStore) -> None:
    two.delete(f"releases/{MODEL}/1/{SIGNATURE}")
    with pytest.raises(ReleaseRefusedError, match="an unsigned release is never used"):
        rolled_back(two, "1")
    pointer = read_channel(two, MODEL, "production")
    assert pointer is not None
    assert pointer.version == "2"


def test_a_decision_signed_with_another_key_proves_nothing(two: FolderStore, tmp_path: Path) -> None:
    manifest = read_manifest(two, MODEL, "2")
    two.put(
        f"releases/{MODEL}/2/{SIGNATURE}", ModelSigner(STRANGER).sign(manifest.name, manifest.signed_digests)
    )
    with pytest.raises(ReleaseRefusedError, match="not trusted"):
        pulled(two, "production", tmp_path / "out")
    signed = sign_decision(full_decision(tmp_path / "1"), STRANGER).to_json()
    with pytest.raises(DataError, match="not trusted"):
        DecisionVerifier([MemoryKmsKey().public_key_pem]).verify(signed)


def test_one_flipped_byte_of_a_release_is_one_too_many(two: FolderStore, tmp_path: Path) -> None:
    manifest = read_manifest(two, MODEL, "2")
    for file in (*manifest.files, *manifest.documents):
        for chunk in file.chunks:
            key = f"blobs/sha256/{chunk.digest[:2]}/{chunk.digest}"
            whole = two.get(key)
            two.put(key, bytes([whole[0] ^ 1]) + whole[1:])
            with pytest.raises(ReleaseRefusedError, match="damaged"):
                pulled(two, "2", tmp_path / "out")
            two.put(key, whole)
    assert pulled(two, "2", tmp_path / "out").version == "2"


def champion_of(platform: RegisteredPlatform, candidate: Files) -> str:
    """Promote a candidate, so that the next one has a champion; returns its version."""
    return run_promote(platform, *stages(candidate)).version


def test_the_champion_must_be_proven(platform: RegisteredPlatform, candidate: Files) -> None:
    """Else whoever writes to the store could have candidates compared with a worse report than was released."""
    version = champion_of(platform, candidate)
    assert champion_report(platform, "f" * 64) is not None
    store, key = platform.promoter_store, f"releases/miniature/{version}/{DECISION}"
    decision = json.loads(store.get(key))
    store.put(key, json.dumps(decision | {"report_sha256": "0" * 64}).encode())
    with pytest.raises(ReleaseRefusedError, match=r"other content than signed in decision\.json"):
        champion_report(platform, "f" * 64)


def test_a_replayed_pointer_brings_no_weaker_champion(platform: RegisteredPlatform, candidate: Files) -> None:
    champion_of(platform, candidate)
    pointer = platform.promoter_store.get(POINTER)
    (candidate.checkpoint / "note.txt").touch()
    report = read_report(candidate.report).model_copy(
        update={"checkpoint_sha256": tree_digest(candidate.checkpoint)}
    )
    candidate.report.write_text(report_json(report))
    assert champion_of(platform, candidate) == "2"
    platform.promoter_store.put(POINTER, pointer)
    with pytest.raises(StorageError, match="an old pointer was put back"):
        champion_report(platform, "f" * 64)


def test_a_decision_edited_or_made_under_another_policy_is_not_promoted(
    platform: RegisteredPlatform, candidate: Files
) -> None:
    policy = platform.config.gate.model_copy(update={"policy": candidate.policy})
    platform = replace(platform, config=platform.config.model_copy(update={"gate": policy}))
    edited, evaluated, decided = stages(candidate)
    require_current(platform, edited, evaluated, decided, None)

    strict = candidate.policy.read_text()
    candidate.policy.write_text(strict.replace("threshold = 0.9", "threshold = 0.999"))
    with pytest.raises(DataError, match=r"says pass, but it is not what the gate decides .*\(blocked\)"):
        require_current(platform, edited, evaluated, decided, None)

    blocked = candidate.decide()
    decided.decision.write_text(as_json(blocked))
    with pytest.raises(DataError, match="says blocked"):  # the flow's record says pass
        require_current(platform, edited, evaluated, decided, None)
    honest = Decided(decision=decided.decision, passed=False, reasons=blocked.reasons)
    require_current(platform, edited, evaluated, honest, None)

    passed = {**json.loads(as_json(blocked)), "outcome": "pass", "checks": []}
    decided.decision.write_text(json.dumps(passed))
    with pytest.raises(DataError, match="outcome pass"):
        require_current(platform, edited, evaluated, decided, None)


def test_a_deleted_channel_is_no_way_to_be_the_first(two: FolderStore) -> None:
    two.delete(POINTER)
    problems = audit_problems(two, MODEL, list_releases(two, MODEL), list_channels(two, MODEL))
    assert problems == (f"{MODEL}@production was moved, and is gone",)
    assert rolled_back(two, "2").version == "2"


def test_a_candidate_is_not_the_first_because_the_channel_was_deleted(
    platform: RegisteredPlatform, candidate: Files
) -> None:
    champion_of(platform, candidate)
    platform.promoter_store.delete(POINTER)
    with pytest.raises(StorageError, match="is gone, but was moved to version 1"):
        champion_report(platform, "f" * 64)
