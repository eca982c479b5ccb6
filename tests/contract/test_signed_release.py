"""Signed releases over each object store: proven as published, refused as soon as anything is not as signed."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from safegen.adapters.folder_store import FolderStore
from safegen.adapters.memory_kms import MemoryKmsKey
from safegen.adapters.s3_store import open_s3_store
from safegen.adapters.signing import ModelSigner, ModelVerifier
from safegen.domain.object_key import blob_key
from safegen.domain.release import DECISION, MANIFEST, SIGNATURE
from safegen.errors import ReleaseRefusedError, SafegenError, StorageError
from safegen.ports import ObjectInfo, ObjectStore
from safegen.release.audit import audit_heads, audit_problems, read_audit
from safegen.release.catalogue import list_releases, read_manifest
from safegen.release.channel import list_channels, read_channel
from safegen.release.verify import verify_folder, verify_stored
from tests.signed_releases import (
    KEY,
    MODEL,
    SIGNER,
    VERIFIER,
    decide,
    make_checkpoint,
    moved,
    pulled,
    released,
    rolled_back,
)

STRANGER = MemoryKmsKey()
FIRST = f"releases/{MODEL}/1"


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.integration)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    access = request.getfixturevalue("trainer")
    location = replace(access.location, prefix=f"runs/{uuid.uuid4().hex}")  # each test sees an empty store
    return open_s3_store(location, credentials=access.credentials, probe_prefix="probe")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "first")


@pytest.fixture
def two(store: ObjectStore, checkpoint: Path, tmp_path: Path) -> ObjectStore:
    released(store, checkpoint)
    released(store, make_checkpoint(tmp_path / "second", attn1=0.5))
    return store


def test_a_release_is_proven_where_it_is_stored_and_where_it_was_pulled(
    two: ObjectStore, tmp_path: Path
) -> None:
    pulled(two, "2", tmp_path / "pulled")
    stored, folder = verify_stored(two, MODEL, "2", VERIFIER), verify_folder(tmp_path / "pulled", VERIFIER)
    assert stored == folder
    assert (stored.valid, stored.release) == (True, "miniature@2")
    names = [check.name for check in stored.checks]
    assert names == ["signature", "files", "digests", "manifest", "decision"]


def test_a_strangers_key_proves_nothing(two: ObjectStore, tmp_path: Path) -> None:
    stranger = ModelVerifier([STRANGER.public_key_pem])
    assert "not trusted" in verify_stored(two, MODEL, "1", stranger).reasons[0]
    with pytest.raises(ReleaseRefusedError, match=r"refused miniature@1: signature: .* is not trusted"):
        pulled(two, "1", tmp_path / "out" / "pulled", stranger)
    assert not (tmp_path / "out").exists()


def _flip_chunk(store: ObjectStore) -> None:
    key = blob_key(read_manifest(store, MODEL, "1").files[-1].chunks[1].digest)
    data = bytearray(store.get(key))
    data[7] ^= 1
    store.put(key, bytes(data))


def _flip_card(store: ObjectStore) -> None:
    card = read_manifest(store, MODEL, "1").documents[0]
    store.put(blob_key(card.chunks[0].digest), b"# all is well")


def _other_decision(store: ObjectStore) -> None:
    decision = json.loads(store.get(f"{FIRST}/{DECISION}"))
    store.put(f"{FIRST}/{DECISION}", json.dumps(decision | {"note": "trust me"}).encode())


def _sign_anew(store: ObjectStore) -> None:
    """Swap the decision and sign all of it with a key of one's own."""
    _other_decision(store)
    manifest = read_manifest(store, MODEL, "1")
    store.put(f"{FIRST}/{SIGNATURE}", ModelSigner(STRANGER).sign(manifest.name, manifest.signed_digests))


def _replay(store: ObjectStore) -> None:
    """Give the older release out as the newer one: all three documents, rightly signed."""
    for name in (MANIFEST, DECISION, SIGNATURE):
        store.put(f"releases/{MODEL}/2/{name}", store.get(f"{FIRST}/{name}"))


def _forge_version(store: ObjectStore) -> None:
    """The same with the version in the manifest changed, which the signature does not cover."""
    _replay(store)
    forged = read_manifest(store, MODEL, "1").model_copy(update={"version": "2"})
    store.put(f"releases/{MODEL}/2/{MANIFEST}", forged.to_bytes())


def _hide_chunk(store: ObjectStore) -> None:
    store.delete(blob_key(read_manifest(store, MODEL, "1").files[-1].chunks[1].digest))


STORE_TAMPERS = [
    (_flip_chunk, "1", r"is damaged"),
    (_flip_card, "1", r"is damaged"),
    (_other_decision, "1", r"digests: other content than signed in decision\.json"),
    (_sign_anew, "1", r"signature: it is signed by key .* which is not trusted"),
    (lambda store: store.delete(f"{FIRST}/{SIGNATURE}"), "1", r"signature\.json is missing"),
    (lambda store: store.delete(f"{FIRST}/{DECISION}"), "1", r"missing decision\.json"),
    (lambda store: store.put(f"{FIRST}/{SIGNATURE}", b"{}"), "1", r"signature\.json is no model signature"),
    (_replay, "2", r"is the manifest of miniature@1|this is miniature@1, expected miniature@2"),
    (_forge_version, "2", r"it is of miniature@2, the signature of miniature@1"),
    (_hide_chunk, "1", r"missing unet/model\.safetensors|no object|no such object"),
]


@pytest.mark.parametrize(("tamper", "version", "reason"), STORE_TAMPERS)
def test_what_was_altered_in_the_store_is_refused_everywhere(
    two: ObjectStore, tmp_path: Path, tamper: Callable[[ObjectStore], None], version: str, reason: str
) -> None:
    moved(two, "production", "2")
    tamper(two)
    found = verify_stored(two, MODEL, version, VERIFIER)
    assert not found.valid
    with pytest.raises(StorageError, match=reason):
        pulled(two, version, tmp_path / "out" / "pulled")
    assert not list(tmp_path.glob("out/*"))
    assert not list(tmp_path.glob("out/.*"))
    if version == "1":
        with pytest.raises(StorageError):
            rolled_back(two, "1")
        pointer = read_channel(two, MODEL, "production")
        assert pointer is not None
        assert pointer.version == "2"


def _append(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + b" ")


def _flip(folder: Path) -> None:
    data = bytearray((folder / "unet" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "unet" / "model.safetensors").write_bytes(bytes(data))


def _link(folder: Path) -> None:
    shutil.move(folder / "model_index.json", folder.parent / "elsewhere.json")
    (folder / "model_index.json").symlink_to(folder.parent / "elsewhere.json")


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (_flip, "digests: other content than signed in unet/model.safetensors"),
        *((_append(name), f"signed in {name}") for name in (DECISION, "sbom.cdx.json", "MODEL_CARD.md")),
        (_append(MANIFEST), "other content than signed in manifest.json"),
        (lambda folder: (folder / "unet" / "empty.txt").unlink(), "files: missing unet/empty.txt"),
        (lambda folder: (folder / "unet" / "extra.py").touch(), "files: not signed unet/extra.py"),
        (_link, "symbolic link"),
        (lambda folder: (folder / SIGNATURE).unlink(), "an unsigned release is never used"),
        (lambda folder: (folder / SIGNATURE).write_text("nothing"), "is no model signature"),
        (lambda folder: (folder / DECISION).unlink(), "missing decision.json"),
        (lambda folder: (folder / MANIFEST).unlink(), "missing manifest.json"),
    ],
)
def test_what_was_altered_in_the_folder_is_told(
    store: ObjectStore, checkpoint: Path, tmp_path: Path, tamper: Callable[[Path], object], reason: str
) -> None:
    released(store, checkpoint)
    folder = tmp_path / "pulled"
    pulled(store, "1", folder)
    tamper(folder)
    found = verify_folder(folder, VERIFIER)
    assert not found.valid
    assert reason in "; ".join(found.reasons)
    with pytest.raises(SafegenError):
        pulled(store, "1", folder)  # nor does a pull take it for what it fetched before


class _Killed(BaseException):
    """The process ends here."""


@dataclass
class _MortalStore:
    """Ends the process at its n-th write, before it or right after it."""

    inner: ObjectStore
    writes_left: int
    done: bool

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def put(self, *args: object, **kwargs: object) -> ObjectInfo:
        self.writes_left -= 1
        if self.writes_left < 0 and not self.done:
            raise _Killed
        info = self.inner.put(*args, **kwargs)
        if self.writes_left < 0:
            raise _Killed
        return info


def _kill_points(make_store: Callable[[], ObjectStore], checkpoint: Path) -> Iterator[ObjectStore]:
    for done in (False, True):
        for writes in range(100):
            store = make_store()
            try:
                released(_MortalStore(store, writes, done), checkpoint)
            except _Killed:
                yield store
            else:
                break


def test_a_publication_killed_at_any_write_is_completed_by_the_next(
    store: ObjectStore, checkpoint: Path, tmp_path: Path
) -> None:
    def emptied() -> ObjectStore:
        for info in list(store.list("")):
            if not info.key.startswith("blobs/") or info.size_bytes < 4096:
                store.delete(info.key)
        return store

    killed = 0
    for after in _kill_points(emptied, checkpoint):
        killed += 1
        for manifest in list_releases(after, MODEL):  # what can be seen is whole
            assert verify_stored(after, MODEL, manifest.version, VERIFIER).valid
        assert released(after, checkpoint).version == "1"
        assert verify_stored(after, MODEL, "1", VERIFIER).valid
        manifests = list_releases(after, MODEL)
        assert [entry.action for entry in read_audit(after, MODEL)] == ["publish"]
        assert audit_problems(after, MODEL, manifests, ()) == ()
    assert killed >= 10


def test_a_new_key_signs_the_same_checkpoint_anew(store: ObjectStore, checkpoint: Path) -> None:
    assert released(store, checkpoint).version == "1"
    rotated = ModelVerifier([STRANGER.public_key_pem])
    assert released(store, checkpoint, signer=ModelSigner(STRANGER), verifier=rotated).version == "2"
    assert released(store, checkpoint, signer=ModelSigner(STRANGER), verifier=rotated).version == "2"
    both = ModelVerifier([STRANGER.public_key_pem, KEY.public_key_pem])
    assert verify_stored(store, MODEL, "1", both).valid
    assert verify_stored(store, MODEL, "2", both).valid


def test_a_signature_left_by_somebody_else_takes_its_version_with_it(
    store: ObjectStore, checkpoint: Path
) -> None:
    store.put(f"{FIRST}/{DECISION}", decide(checkpoint))
    store.put(f"{FIRST}/{SIGNATURE}", ModelSigner(STRANGER).sign("miniature@1", {"a": "0" * 64}))
    assert released(store, checkpoint).version == "2"


def test_the_audit_log_is_a_chain_that_misses_what_is_altered(two: ObjectStore) -> None:
    moved(two, "production", "1", who="ann", why="first")
    moved(two, "production", "2", who="ci", why="better")
    rolled_back(two, "1", who="bob", why="complaints")

    def problems() -> tuple[str, ...]:
        return audit_problems(two, MODEL, list_releases(two, MODEL), list_channels(two, MODEL))

    entries = read_audit(two, MODEL)
    assert problems() == ()
    assert [(one.who, one.action, one.previous, one.version, one.why) for one in entries[2:]] == [
        ("ann", "promote", None, "1", "first"),
        ("ci", "promote", "1", "2", "better"),
        ("bob", "rollback", "2", "1", "complaints"),
    ]
    assert len(audit_heads(two, MODEL)) == 1
    for entry in entries:
        kept = two.get(entry.key)
        two.delete(entry.key)
        assert problems(), f"{entry.action} can vanish"
        for change in ({"who": "nobody"}, {"why": "no reason"}, {"parents": ()}):
            altered = entry.model_copy(update=change).to_bytes()
            if altered != kept:
                two.put(entry.key, altered)
                last_and_same_deed = entry == entries[-1] and "parents" in change
                assert bool(problems()) != last_and_same_deed, change
        two.put(entry.key, kept)
    assert problems() == ()


def test_a_damaged_audit_entry_is_told_and_stops_nobody(two: ObjectStore) -> None:
    moved(two, "production", "2")
    entry = read_audit(two, MODEL)[0]
    two.put(entry.key, b"{")
    rolled_back(two, "1")
    told = audit_problems(two, MODEL, list_releases(two, MODEL), list_channels(two, MODEL))
    assert f"{entry.key} is not the entry that was written under this name" in told


def test_each_release_anchors_the_log_before_it(two: ObjectStore) -> None:
    first, second = read_audit(two, MODEL)
    assert read_manifest(two, MODEL, "1").audit_heads == ()
    assert len(read_manifest(two, MODEL, "2").audit_heads) == 1
    # Written anew from its beginning, consistently, by somebody without the key.
    two.delete(second.key)
    two.put(first.key, first.model_copy(update={"parents": ("0" * 64,)}).to_bytes())
    told = audit_problems(two, MODEL, list_releases(two, MODEL), ())
    assert any("before release 2" in problem for problem in told)


def test_the_signer_is_asked_once_for_a_release(store: ObjectStore, checkpoint: Path) -> None:
    class Counting:
        asked = 0

        def sign(self, subject: str, digests) -> bytes:
            self.asked += 1
            return SIGNER.sign(subject, digests)

    signer = Counting()
    for _ in range(3):
        released(store, checkpoint, signer=signer)
    assert signer.asked == 1
