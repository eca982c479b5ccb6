"""Publishing, finding, pulling and withdrawing releases, on a folder store."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from safegen.adapters.folder_store import FolderStore
from safegen.domain.digests import tree_digest
from safegen.domain.object_key import blob_key
from safegen.errors import DataError, ObjectNotFoundError, PreconditionFailedError, StorageError
from safegen.release.audit import read_audit
from safegen.release.catalogue import list_releases, read_manifest
from safegen.release.channel import list_channels, move_channel, read_channel, rollback
from safegen.release.publish import Provenance, publish
from safegen.release.pull import pull

BY = Provenance(who="ci", why="passed the gate", metadata={"base": "miniature"})
MODEL = "miniature"


def make_checkpoint(folder: Path, attn1: float = 0.0) -> Path:
    """A checkpoint with a large tensor, many small ones, both attentions, and a nested text file."""
    tensors = {"down.conv.weight": np.arange(400_000, dtype=np.float32)}
    for block in range(8):
        for kind, fill in (("attn1", attn1), ("attn2", 2.0)):
            for name in ("to_k", "to_q", "to_v"):
                tensors[f"blocks.{block}.{kind}.{name}.weight"] = np.full(
                    10_000, fill + block, dtype=np.float32
                )
    (folder / "unet").mkdir(parents=True)
    save_file(tensors, folder / "unet" / "model.safetensors", metadata={"format": "np"})
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (folder / "unet" / "empty.txt").touch()
    return folder


def decide(checkpoint: Path, **changes: object) -> bytes:
    return json.dumps({"outcome": "pass", "checkpoint_sha256": tree_digest(checkpoint)} | changes).encode()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "first")


@pytest.fixture
def two_releases(store: FolderStore, checkpoint: Path, tmp_path: Path) -> FolderStore:
    second = make_checkpoint(tmp_path / "second", attn1=0.5)
    publish(store, MODEL, checkpoint, decide(checkpoint), provenance=BY)
    publish(store, MODEL, second, decide(second), provenance=BY)
    return store


def test_what_is_pulled_is_what_was_published(store: FolderStore, checkpoint: Path, tmp_path: Path) -> None:
    release = publish(store, MODEL, checkpoint, decide(checkpoint), provenance=BY)
    move_channel(store, MODEL, "production", release.version, who="ci", why="pass")

    pulled = pull(store, MODEL, "production", tmp_path / "pulled")

    assert pulled == release
    assert release.uri == f"{store.uri}/releases/miniature/1/manifest.json"
    assert tree_digest(tmp_path / "pulled") == tree_digest(checkpoint)
    assert pull(store, MODEL, "1", tmp_path / "pulled") == release  # the folder holds it already


def test_publishing_again_returns_the_release_that_is_there(store: FolderStore, checkpoint: Path) -> None:
    first = publish(store, MODEL, checkpoint, decide(checkpoint), provenance=BY)
    assert publish(store, MODEL, checkpoint, decide(checkpoint), provenance=BY) == first
    assert publish(store, MODEL, checkpoint, decide(checkpoint, utc="later"), provenance=BY).version == "2"
    assert [entry.action for entry in read_audit(store, MODEL)] == ["publish", "publish"]


def test_a_second_release_uploads_only_the_chunks_that_hold_edited_tensors(
    store: FolderStore, checkpoint: Path, tmp_path: Path
) -> None:
    publish(store, MODEL, checkpoint, decide(checkpoint), provenance=BY)
    before = {info.key for info in store.list("blobs/")}
    edited = make_checkpoint(tmp_path / "edited", attn1=0.25)
    publish(store, MODEL, edited, decide(edited), provenance=BY)
    new = [info for info in store.list("blobs/") if info.key not in before]

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
        publish(store, MODEL, checkpoint, decide(checkpoint, **change), provenance=BY)
    assert list(store.list("")) == []


@pytest.mark.parametrize("decision", [b"", b"[]", b'{"outcome": "pass"}', b"\xff"])
def test_a_decision_that_is_none_is_refused(store: FolderStore, checkpoint: Path, decision: bytes) -> None:
    with pytest.raises(DataError):
        publish(store, MODEL, checkpoint, decision, provenance=BY)


def test_pickled_weights_are_refused(store: FolderStore, checkpoint: Path) -> None:
    (checkpoint / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(DataError, match="export it as safetensors"):
        publish(store, MODEL, checkpoint, decide(checkpoint), provenance=BY)


def test_a_damaged_safetensors_file_is_refused(store: FolderStore, checkpoint: Path) -> None:
    weights = checkpoint / "unet" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(DataError, match="tensors end at"):
        publish(store, MODEL, checkpoint, decide(checkpoint), provenance=BY)


@pytest.mark.parametrize("name", ["../other", "a/b", "", "1", "a\n"])
def test_a_name_cannot_leave_its_place(store: FolderStore, checkpoint: Path, name: str) -> None:
    with pytest.raises(DataError, match="refused model name"):
        publish(store, name, checkpoint, decide(checkpoint), provenance=BY)


def test_racing_publishers_get_a_version_each(store: FolderStore, checkpoint: Path) -> None:
    decisions = [decide(checkpoint, run=number) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda data: publish(store, MODEL, checkpoint, data, provenance=BY), decisions))
    assert sorted(release.version for release in made) == ["1", "2", "3", "4", "5", "6"]
    assert len(list_releases(store, MODEL)) == 6


def test_a_publication_cut_short_is_carried_on(store: FolderStore, checkpoint: Path) -> None:
    store.put("releases/miniature/1/decision.json", decide(checkpoint))
    assert list_releases(store, MODEL) == ()
    assert publish(store, MODEL, checkpoint, decide(checkpoint), provenance=BY).version == "1"


def test_a_version_that_holds_a_foreign_decision_is_left_alone(store: FolderStore, checkpoint: Path) -> None:
    store.put("releases/miniature/1/decision.json", b"{}")
    assert publish(store, MODEL, checkpoint, decide(checkpoint), provenance=BY).version == "2"
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
        (_pass_a_blocked_one, "decision has SHA-256"),
        (lambda store: store.delete("releases/miniature/1/decision.json"), "decision is missing"),
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
    move_channel(two_releases, MODEL, "production", "1", who="ci", why="pass")
    tamper(two_releases)
    with pytest.raises(StorageError, match=message):
        pull(two_releases, MODEL, "production", tmp_path / "out" / "pulled")
    assert not list(tmp_path.glob("out/*"))
    assert not list(tmp_path.glob("out/.*"))


def test_pull_overwrites_nothing(two_releases: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="something else is there"):
        pull(two_releases, MODEL, "1", tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("ref", ["staging", "7"])
def test_what_does_not_exist_is_said_so(two_releases: FolderStore, tmp_path: Path, ref: str) -> None:
    with pytest.raises(ObjectNotFoundError, match="safegen releases miniature"):
        pull(two_releases, MODEL, ref, tmp_path / "pulled")


def test_a_channel_moves_and_rolls_back_with_a_record_of_both(two_releases: FolderStore) -> None:
    move_channel(two_releases, MODEL, "production", "1", who="ann", why="first")
    move_channel(two_releases, MODEL, "production", "2", who="ci", why="better")
    back = rollback(two_releases, MODEL, "production", "1", who="bob", why="complaints")

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
    first = move_channel(two_releases, MODEL, "production", "1", who="ann", why="first")
    (entry,) = [entry for entry in read_audit(two_releases, MODEL) if entry.channel]
    two_releases.delete(entry.key)  # as if the job had been killed between the two writes
    assert move_channel(two_releases, MODEL, "production", "1", who="ci", why="again") == first
    assert entry in read_audit(two_releases, MODEL)


def test_of_racing_moves_none_is_lost_unseen(two_releases: FolderStore) -> None:
    move_channel(two_releases, MODEL, "production", "1", who="ann", why="first")

    def move(number: int) -> bool:
        try:
            move_channel(
                two_releases, MODEL, "production", str(1 + number % 2), who=f"job{number}", why="race"
            )
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
    before = move_channel(two_releases, MODEL, "production", "2", who="ci", why="pass")
    tamper(two_releases)
    with pytest.raises(StorageError, match="refused miniature@1"):
        rollback(two_releases, MODEL, "production", "1", who="bob", why="complaints")
    assert read_channel(two_releases, MODEL, "production") == before


def test_rollback_needs_a_channel_and_an_older_version(two_releases: FolderStore) -> None:
    with pytest.raises(DataError, match="no such channel"):
        rollback(two_releases, MODEL, "production", "1", who="bob", why="x")
    move_channel(two_releases, MODEL, "production", "1", who="ci", why="pass")
    with pytest.raises(DataError, match="it is newer"):
        rollback(two_releases, MODEL, "production", "2", who="bob", why="x")
    with pytest.raises(ObjectNotFoundError):
        rollback(two_releases, MODEL, "production", "9", who="bob", why="x")
