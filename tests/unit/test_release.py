"""Publishing, finding, pulling and withdrawing releases, on a folder store."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from safegen.adapters.folder_store import FolderStore
from safegen.domain.digests import tree_digests
from safegen.domain.object_key import blob_key
from safegen.domain.release import RELEASE_DOCUMENTS
from safegen.errors import (
    DataError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StorageError,
)
from safegen.release.audit import read_audit
from safegen.release.catalogue import list_releases, read_manifest
from safegen.release.channel import list_channels, read_channel
from tests.signed_releases import MODEL, decide, make_checkpoint, moved, pulled, released, rolled_back


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "first")


@pytest.fixture
def two_releases(store: FolderStore, checkpoint: Path, tmp_path: Path) -> FolderStore:
    second = make_checkpoint(tmp_path / "second", attn1=0.5)
    released(store, checkpoint)
    released(store, second)
    return store


def test_what_is_pulled_is_what_was_published(store: FolderStore, checkpoint: Path, tmp_path: Path) -> None:
    release = released(store, checkpoint)
    moved(store, "production", release.version)

    found = pulled(store, "production", tmp_path / "pulled")

    assert found == release
    assert release.uri == f"{store.uri}/releases/miniature/1/manifest.json"
    files = tree_digests(tmp_path / "pulled")
    assert {path: files.pop(path) for path in tree_digests(checkpoint)} == tree_digests(checkpoint)
    assert files.keys() == RELEASE_DOCUMENTS
    assert pulled(store, "1", tmp_path / "pulled") == release  # the folder holds it already


def test_publishing_again_returns_the_release_that_is_there(store: FolderStore, checkpoint: Path) -> None:
    first = released(store, checkpoint)
    assert released(store, checkpoint) == first
    assert released(store, checkpoint, decide(checkpoint, utc="later")).version == "2"
    assert [entry.action for entry in read_audit(store, MODEL)] == ["publish", "publish"]


def test_a_second_release_uploads_only_the_chunks_that_hold_edited_tensors(
    store: FolderStore, checkpoint: Path, tmp_path: Path
) -> None:
    released(store, checkpoint)
    before = {info.key for info in store.list("blobs/")}
    edited = make_checkpoint(tmp_path / "edited", attn1=0.25)
    released(store, edited)
    manifest = blob_key(read_manifest(store, MODEL, "2").digest)
    new = [info for info in store.list("blobs/") if info.key not in {*before, manifest}]

    assert len(new) == 8  # one run of attn1 per block: neither header, nor attn2, nor the convolution
    assert sum(info.size_bytes for info in new) == 8 * 3 * 40_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcome": "blocked"}, "outcome is 'blocked'"),
        ({"outcome": None}, "outcome is None"),
        ({"checkpoint_sha256": "0" * 64}, "run the gate on this checkpoint"),
    ],
)
def test_no_pass_for_this_checkpoint_no_release(
    store: FolderStore, checkpoint: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        released(store, checkpoint, decide(checkpoint, **change))
    assert list(store.list("")) == []


@pytest.mark.parametrize("decision", [b"", b"[]", b'{"outcome": "pass"}', b"\xff"])
def test_a_decision_that_is_none_is_refused(store: FolderStore, checkpoint: Path, decision: bytes) -> None:
    with pytest.raises(DataError):
        released(store, checkpoint, decision)


def test_pickled_weights_are_refused(store: FolderStore, checkpoint: Path) -> None:
    (checkpoint / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(DataError, match="export it as safetensors"):
        released(store, checkpoint)


def test_a_damaged_safetensors_file_is_refused(store: FolderStore, checkpoint: Path) -> None:
    weights = checkpoint / "unet" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(DataError, match="tensors end at"):
        released(store, checkpoint)


@pytest.mark.parametrize("name", ["../other", "a/b", "", "1", "a\n"])
def test_a_name_cannot_leave_its_place(store: FolderStore, checkpoint: Path, name: str) -> None:
    with pytest.raises(DataError, match="refused model name"):
        released(store, checkpoint, model=name)


def test_racing_publishers_get_a_version_each(store: FolderStore, checkpoint: Path) -> None:
    decisions = [decide(checkpoint, run=number) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda data: released(store, checkpoint, data), decisions))
    assert sorted(release.version for release in made) == ["1", "2", "3", "4", "5", "6"]
    assert len(list_releases(store, MODEL)) == 6


def test_a_publication_cut_short_is_carried_on(store: FolderStore, checkpoint: Path) -> None:
    store.put("releases/miniature/1/decision.json", decide(checkpoint))
    assert list_releases(store, MODEL) == ()
    assert released(store, checkpoint).version == "1"


def test_a_version_that_holds_a_foreign_decision_is_left_alone(store: FolderStore, checkpoint: Path) -> None:
    store.put("releases/miniature/1/decision.json", b"{}")
    assert released(store, checkpoint).version == "2"
    assert store.get("releases/miniature/1/decision.json") == b"{}"


def _flip_a_blob(store: FolderStore) -> None:
    chunk = read_manifest(store, MODEL, "1").files[-1].chunks[1]
    data = bytearray(store.get(blob_key(chunk.digest)))
    data[0] ^= 1
    store.put(blob_key(chunk.digest), bytes(data))


def _pass_a_blocked_one(store: FolderStore) -> None:
    key = "releases/miniature/1/decision.json"
    store.put(key, json.dumps(json.loads(store.get(key)) | {"outcome": "blocked"}).encode())


def _swap_two_files(store: FolderStore) -> None:
    key = "releases/miniature/1/manifest.json"
    manifest = json.loads(store.get(key))
    manifest["files"][0]["path"], manifest["files"][2]["path"] = (
        manifest["files"][2]["path"],
        manifest["files"][0]["path"],
    )
    store.put(key, json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode())


def _escape(store: FolderStore) -> None:
    key = "releases/miniature/1/manifest.json"
    store.put(key, store.get(key).replace(b"model_index.json", b"../../index.json"))


def _note_something_else(store: FolderStore) -> None:
    key = "releases/miniature/1/manifest.json"
    store.put(key, store.get(key).replace(b'"base":"miniature"', b'"base":"another"'))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (_flip_a_blob, "is damaged"),
        (_pass_a_blocked_one, "other content than signed in decision.json"),
        (lambda store: store.delete("releases/miniature/1/decision.json"), "missing decision.json"),
        (_swap_two_files, "digests give checkpoint"),
        (_escape, "refused object key"),
        (_note_something_else, "do not use it"),
        (lambda store: store.put("releases/miniature/1/manifest.json", b"{"), "no valid ReleaseManifest"),
        (
            lambda store: store.put(
                "releases/miniature/1/manifest.json", store.get("releases/miniature/2/manifest.json")
            ),
            "is the manifest of miniature@2",
        ),
    ],
)
def test_what_was_tampered_with_does_not_appear(
    two_releases: FolderStore, tmp_path: Path, tamper, message
) -> None:
    moved(two_releases, "production", "1")
    tamper(two_releases)
    with pytest.raises(StorageError, match=message):
        pulled(two_releases, "production", tmp_path / "out" / "pulled")
    assert not list(tmp_path.glob("out/*"))
    assert not list(tmp_path.glob("out/.*"))


def test_pull_overwrites_nothing(two_releases: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="something else is there"):
        pulled(two_releases, "1", tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("ref", ["staging", "7"])
def test_what_does_not_exist_is_said_so(two_releases: FolderStore, tmp_path: Path, ref: str) -> None:
    with pytest.raises(ObjectNotFoundError, match="safegen releases miniature"):
        pulled(two_releases, ref, tmp_path / "pulled")


def test_a_channel_moves_and_rolls_back_with_a_record_of_both(two_releases: FolderStore) -> None:
    moved(two_releases, "production", "1", who="ann", why="first")
    moved(two_releases, "production", "2", who="ci", why="better")
    back = rolled_back(two_releases, "1", who="bob", why="complaints")

    assert (back.version, back.previous, back.why) == ("1", "2", "complaints")
    assert read_channel(two_releases, MODEL, "production") == back
    assert list_channels(two_releases, MODEL) == (back,)
    moves = [entry for entry in read_audit(two_releases, MODEL) if entry.channel]
    assert [(entry.action, entry.version, entry.who) for entry in moves] == [
        ("promote", "1", "ann"),
        ("promote", "2", "ci"),
        ("rollback", "1", "bob"),
    ]


def test_moving_to_where_it_points_changes_nothing_and_mends_the_record(two_releases: FolderStore) -> None:
    first = moved(two_releases, "production", "1", who="ann", why="first")
    (entry,) = [entry for entry in read_audit(two_releases, MODEL) if entry.channel]
    two_releases.delete(entry.key)  # as if the job had been killed between the two writes
    assert moved(two_releases, "production", "1", who="ci", why="again") == first
    assert entry in read_audit(two_releases, MODEL)


def test_of_racing_moves_none_is_lost_unseen(two_releases: FolderStore) -> None:
    moved(two_releases, "production", "1", who="ann", why="first")

    def move(number: int) -> bool:
        try:
            moved(two_releases, "production", str(1 + number % 2), who=f"job{number}")
        except PreconditionFailedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(move, range(16)))
    moves = [entry for entry in read_audit(two_releases, MODEL) if entry.channel]
    for earlier, later in itertools.pairwise(moves):
        assert later.previous == earlier.version  # each move saw the one before it


@pytest.mark.parametrize(
    "tamper", [_pass_a_blocked_one, lambda s: s.delete("releases/miniature/1/decision.json")]
)
def test_no_rollback_to_a_release_without_a_pass(two_releases: FolderStore, tamper) -> None:
    before = moved(two_releases, "production", "2")
    tamper(two_releases)
    with pytest.raises(StorageError, match="refused miniature@1"):
        rolled_back(two_releases, "1", who="bob", why="complaints")
    assert read_channel(two_releases, MODEL, "production") == before


def test_rollback_needs_a_channel_and_an_older_version(two_releases: FolderStore) -> None:
    with pytest.raises(DataError, match="no such channel"):
        rolled_back(two_releases, "1")
    moved(two_releases, "production", "1")
    with pytest.raises(DataError, match="it is newer"):
        rolled_back(two_releases, "2")
    with pytest.raises(ObjectNotFoundError):
        rolled_back(two_releases, "9")
