"""Approvals: only an approver's signature about this very decision lets a channel move."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from safegen.adapters.signing_keys import KeyPair, create_key_pair
from safegen.cli import main
from safegen.errors import DataError, ReleaseRefusedError
from safegen.pipeline.approve import is_approval_due
from safegen.pipeline.outcomes import Decided, Edited, Evaluated
from safegen.pipeline.promote import run_promote
from safegen.release.audit import read_audit
from safegen.release.catalogue import list_releases
from tests.unit.test_gate import Files, files
from tests.unit.test_promote import RegisteredPlatform, candidate, platform, stages

__all__ = ["candidate", "files", "platform"]  # fixtures
Approve = Callable[..., str]


@pytest.fixture
def approver(tmp_path: Path) -> KeyPair:
    return create_key_pair(tmp_path / "alice")


@pytest.fixture
def guarded(platform: RegisteredPlatform, approver: KeyPair) -> RegisteredPlatform:
    promote = platform.config.promote.model_copy(update={"approvers": (approver.public,)})
    return replace(platform, config=platform.config.model_copy(update={"promote": promote}))


@pytest.fixture
def staged(candidate: Files) -> tuple[Edited, Evaluated, Decided]:
    return stages(candidate)


@pytest.fixture
def approve(
    staged: tuple[Edited, Evaluated, Decided], approver: KeyPair, capsys: pytest.CaptureFixture[str]
) -> Approve:
    def sign(*options: str, key: Path = approver.private) -> str:
        words = [
            "approve",
            str(staged[2].decision),
            "--key",
            str(key),
            "--why",
            "pictures looked at",
            *options,
        ]
        assert main(words) == 0
        return capsys.readouterr().out

    return sign


def test_a_signed_approval_lets_the_channel_move_and_is_kept_with_the_release(
    guarded: RegisteredPlatform, staged: tuple[Edited, Evaluated, Decided], approve: Approve
) -> None:
    edited, _, decided = staged
    assert is_approval_due(guarded, edited, decided)
    signed = approve()
    run_promote(guarded, *staged, signed)

    [release] = list_releases(guarded.promoter_store, "miniature")
    assert json.loads(release.metadata["approval"]) == json.loads(signed)
    assert "pictures looked at" in read_audit(guarded.promoter_store, "miniature")[-1].why
    assert not is_approval_due(guarded, edited, decided)
    assert run_promote(guarded, *staged).changed is False


def test_without_an_approval_nothing_is_released(
    guarded: RegisteredPlatform, staged: tuple[Edited, Evaluated, Decided]
) -> None:
    with pytest.raises(ReleaseRefusedError, match=r"waits for an approver.*safegen approve"):
        run_promote(guarded, *staged)
    assert list(guarded.promoter_store.list("")) == []


def test_where_nobody_must_approve_nobody_is_asked(
    platform: RegisteredPlatform, staged: tuple[Edited, Evaluated, Decided]
) -> None:
    assert run_promote(platform, *staged).changed
    [release] = list_releases(platform.promoter_store, "miniature")
    assert "approval" not in release.metadata


def test_an_approval_of_something_else_or_by_somebody_else_does_not_count(
    guarded: RegisteredPlatform, staged: tuple[Edited, Evaluated, Decided], approve: Approve, tmp_path: Path
) -> None:
    stranger = create_key_pair(tmp_path / "mallory").private
    signed = json.loads(approve())
    forged = {**signed, "payload": signed["payload"].replace("pictures looked at", "whatever")}
    for text, reason in (
        (approve(key=stranger), "not trusted"),
        (approve("--channel", "staging"), "channel staging, expected production"),
        (json.dumps(forged), "signature does not fit under key"),
        ("approved", "not valid JSON"),
    ):
        with pytest.raises(DataError, match=reason):
            run_promote(guarded, *staged, text)
    staged[2].decision.write_text(staged[2].decision.read_text() + " ")
    with pytest.raises(DataError, match="decision_sha256"):
        run_promote(guarded, *staged, json.dumps(signed))
    assert list(guarded.promoter_store.list("")) == []


def test_a_blocked_decision_cannot_be_approved(
    staged: tuple[Edited, Evaluated, Decided], approver: KeyPair, capsys: pytest.CaptureFixture[str]
) -> None:
    decision = json.loads(staged[2].decision.read_text())
    decision["checks"][0] |= {"passed": False}
    staged[2].decision.write_text(json.dumps(decision | {"outcome": "blocked"}))
    assert main(["approve", str(staged[2].decision), "--key", str(approver.private)]) == 2
    assert "cannot be approved" in capsys.readouterr().err
