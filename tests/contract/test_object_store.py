"""What every object store must do, run over each of them."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from safegen.adapters.folder_store import FolderStore
from safegen.adapters.s3_store import open_s3_store
from safegen.blobs import download_blob, get_blob, put_blob
from safegen.domain.object_key import blob_key
from safegen.errors import ObjectNotFoundError, PreconditionFailedError, StorageError
from safegen.ports import ObjectStore
from tests.documented import example


@pytest.fixture(params=["folder", "documented", pytest.param("s3", marks=pytest.mark.integration)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    if request.param == "documented":
        return example("memory_store").MemoryStore()
    access = request.getfixturevalue("trainer")
    location = replace(access.location, prefix=f"runs/{uuid.uuid4().hex}")  # each test sees an empty store
    return open_s3_store(location, credentials=access.credentials, probe_prefix="probe")


def race(number: int, deed: Callable[[int], object]) -> list[int]:
    """Do a deed in many threads at once and return the numbers of those that were not refused."""

    def attempt(index: int) -> bool:
        try:
            deed(index)
        except PreconditionFailedError:
            return False
        return True

    with ThreadPoolExecutor(number) as pool:
        return [index for index, won in enumerate(pool.map(attempt, range(number))) if won]


def test_what_is_put_is_what_one_gets(store: ObjectStore) -> None:
    info = store.put("a/b c/ü=1.json", b"content")
    assert store.get("a/b c/ü=1.json") == b"content"
    assert store.head("a/b c/ü=1.json") == info
    assert (info.key, info.size_bytes) == ("a/b c/ü=1.json", 7)
    store.put("a/b c/ü=1.json", b"")
    assert store.get("a/b c/ü=1.json") == b""


def test_what_is_not_there(store: ObjectStore, tmp_path: Path) -> None:
    assert store.head("missing") is None
    store.delete("missing")
    with pytest.raises(ObjectNotFoundError):
        store.get("missing")
    with pytest.raises(ObjectNotFoundError):
        store.download("missing", tmp_path / "missing")
    assert not list(tmp_path.glob("*missing*"))


def test_deleted_is_gone(store: ObjectStore) -> None:
    store.put("a", b"1")
    store.delete("a")
    assert store.head("a") is None
    assert list(store.list("")) == []


def test_if_absent_writes_once(store: ObjectStore) -> None:
    store.put("a", b"first", if_absent=True)
    with pytest.raises(PreconditionFailedError):
        store.put("a", b"second", if_absent=True)
    assert store.get("a") == b"first"


def test_if_match_writes_over_what_was_seen_only(store: ObjectStore) -> None:
    first = store.put("a", b"first")
    second = store.put("a", b"second", if_match=first.etag)
    with pytest.raises(PreconditionFailedError):
        store.put("a", b"third", if_match=first.etag)
    assert store.get("a") == b"second"
    store.delete("a")
    with pytest.raises(PreconditionFailedError):
        store.put("a", b"fourth", if_match=second.etag)
    assert store.head("a") is None


def test_of_sixteen_first_writers_one_wins(store: ObjectStore) -> None:
    winners = race(16, lambda index: store.put("a", f"writer {index}".encode(), if_absent=True))
    assert len(winners) == 1
    assert store.get("a") == f"writer {winners[0]}".encode()


def test_of_sixteen_swaps_one_wins(store: ObjectStore) -> None:
    seen = store.put("a", b"before")
    winners = race(16, lambda index: store.put("a", f"writer {index}".encode(), if_match=seen.etag))
    assert len(winners) == 1
    assert store.get("a") == f"writer {winners[0]}".encode()


@pytest.mark.parametrize("size", [0, 5, 20 * 2**20 + 1])  # the last one goes to S3 in parts
def test_files_go_up_and_come_down_unchanged(store: ObjectStore, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    source.write_bytes(os.urandom(size))
    info = store.upload("a/file", source)
    assert (info, info.size_bytes) == (store.head("a/file"), size)
    store.download("a/file", target)
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_an_upload_replaces_and_a_missing_file_is_said_so(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"new")
    store.put("a", b"old")
    store.upload("a", tmp_path / "source")
    assert store.get("a") == b"new"
    with pytest.raises(StorageError, match="upload"):
        store.upload("a", tmp_path / "nowhere")
    assert store.get("a") == b"new"


def test_lists_are_in_byte_order_and_hold_to_the_prefix(store: ObjectStore) -> None:
    keys = ["a/1", "a/10", "a/2", "a-b", "a.c", "ab", "a/B", "a/b/c", "ä", "b/1"]
    for key in keys:
        store.put(key, key.encode())
    in_order = sorted(keys, key=str.encode)
    assert [info.key for info in store.list("")] == in_order
    assert [info.key for info in store.list("a/")] == [key for key in in_order if key.startswith("a/")]
    assert [info.key for info in store.list("a/1")] == ["a/1", "a/10"]
    assert list(store.list("c")) == []
    assert all(info == store.head(info.key) for info in store.list(""))


def test_lists_go_past_a_page(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: store.put(f"many/{index:04}", b"x"), range(1010)))
    assert [info.key for info in store.list("many/")] == [f"many/{index:04}" for index in range(1010)]


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "../a", "a/../b", "a//b", "./a", "a\\b", "a\nb", "a\x00", "a\x7f", "x" * 1025, "\ud800"],
)
def test_a_key_cannot_leave_the_store(store: ObjectStore, tmp_path: Path, key: str) -> None:
    for deed in (store.get, store.head, store.delete, lambda bad: store.put(bad, b"x")):
        with pytest.raises(StorageError, match="refused object key"):
            deed(key)
    if key:  # nothing at all is a fair prefix
        with pytest.raises(StorageError, match="refused object key"):
            list(store.list(key if key != "a/" else "a//"))


def test_blobs_are_sent_once_and_proven(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    digest = put_blob(store, tmp_path / "file")
    before = store.head(blob_key(digest))
    assert put_blob(store, b"content") == digest == hashlib.sha256(b"content").hexdigest()
    assert store.head(blob_key(digest)) == before
    assert get_blob(store, digest) == b"content"

    store.put(blob_key(digest), b"forgery")
    with pytest.raises(StorageError, match="is damaged"):
        get_blob(store, digest)
    with pytest.raises(StorageError, match="is damaged"):
        download_blob(store, digest, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name != "store"] == ["file"]

    store.put(blob_key(digest), b"cut")
    put_blob(store, b"content")  # another length cannot be right, so it is sent again
    download_blob(store, digest, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"content"
