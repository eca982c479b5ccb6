"""A disk that takes no more: an error that says so, nothing half-written, and all well once there is room again.

Mounting a small disk needs rights that tests have not; a limit on the size of files makes the same write calls fail.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from safegen.adapters.folder_store import FolderStore
from safegen.errors import SafegenError
from safegen.release.audit import audit_problems
from safegen.release.catalogue import list_releases
from safegen.release.channel import list_channels, read_channel
from safegen.release.verify import verify_stored
from tests.signed_releases import MODEL, VERIFIER, make_checkpoint, moved, pulled, released


@contextmanager
def full_after(size_bytes: int) -> Iterator[None]:
    """Let no file grow beyond this size, in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.mark.parametrize("size_bytes", [0, 100, 1000, 100_000, 500_000])
def test_nothing_half_written_is_released(store: FolderStore, tmp_path: Path, size_bytes: int) -> None:
    checkpoint = make_checkpoint(tmp_path / "1")
    with full_after(size_bytes), pytest.raises(SafegenError) as failed:
        released(store, checkpoint)
    assert len(str(failed.value).splitlines()) == 1
    assert "space" in str(failed.value) or "too large" in str(failed.value)
    assert list_releases(store, MODEL) == ()
    assert not list((tmp_path / "store" / ".store" / "pending").iterdir())

    assert released(store, checkpoint).version == "1"
    assert verify_stored(store, MODEL, "1", VERIFIER).valid
    assert audit_problems(store, MODEL, list_releases(store, MODEL), list_channels(store, MODEL)) == ()


def test_a_channel_that_cannot_be_moved_stays(store: FolderStore, tmp_path: Path) -> None:
    for number in (1, 2):
        released(store, make_checkpoint(tmp_path / str(number), attn1=number))
    moved(store, "production", "1")
    with full_after(10), pytest.raises(SafegenError):
        moved(store, "production", "2")
    pointer = read_channel(store, MODEL, "production")
    assert pointer is not None
    assert pointer.version == "1"
    assert moved(store, "production", "2").previous == "1"


def test_a_pull_that_finds_no_room_leaves_nothing_behind(store: FolderStore, tmp_path: Path) -> None:
    released(store, make_checkpoint(tmp_path / "1"))
    with full_after(50_000), pytest.raises(SafegenError) as failed:
        pulled(store, "1", tmp_path / "out" / "model")
    assert len(str(failed.value).splitlines()) == 1
    assert list(tmp_path.glob("out/*")) == []
    assert pulled(store, "1", tmp_path / "out" / "model").version == "1"
