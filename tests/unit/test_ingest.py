"""Ingestion: duplicates, quarantine, content addressing, and what a second run does."""

from __future__ import annotations

import io
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safegen.adapters.folder_store import FolderStore
from safegen.data.decode import DecodeLimits
from safegen.data.duplicates import NearIndex, resolve_duplicates
from safegen.data.examine import ExaminerPool, Refused
from safegen.data.ingest import IngestLimits, IngestResult, ingest
from safegen.data.journal import Journal
from safegen.data.manifest import manifest_key, read_images, read_quarantine, write_images
from safegen.data.picture import blob_key, get_picture
from safegen.data.sources import FolderSource
from safegen.domain.dataset import ImageRecord, Reason, row_of, rows_digest, sorted_records, split_of
from safegen.domain.digests import digest_json, sha256_bytes
from safegen.errors import ConfigError, DataError

LIMITS = IngestLimits(DecodeLimits(max_bytes=400_000, max_pixels=100_000, min_side_px=16), held_out_rate=0.3)


def blobs_picture(seed: int, size: int = 64) -> np.ndarray:
    """A few soft blobs: natural enough for perceptual hashes."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    pixels = np.zeros((size, size, 3))
    for _ in range(6):
        centre_x, centre_y, width = random.random(), random.random(), 0.05 + 0.2 * random.random()
        pixels += (
            random.random(3) * np.exp(-((x - centre_x) ** 2 + (y - centre_y) ** 2) / width**2)[..., None]
        )
    return (255 * pixels / pixels.max()).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    root = tmp_path / "raw"
    for index in range(12):
        save(root / "unsafe" / f"u{index:02}.png", blobs_picture(index))
        save(root / "benign" / f"b{index:02}.jpg", blobs_picture(100 + index), quality=90)
    unsafe = root / "unsafe"
    (unsafe / "empty.png").write_bytes(b"")
    (unsafe / "script.png").write_bytes(b"#!/bin/sh\n")
    (unsafe / "cut.png").write_bytes((unsafe / "u00.png").read_bytes()[:500])
    save(unsafe / "huge.png", np.zeros((400, 400, 3), np.uint8))
    save(unsafe / "zz-same.png", blobs_picture(3), compress_level=0)  # other bytes, same pixels
    save(unsafe / "zz-near.jpg", blobs_picture(4), quality=80)
    save(root / "benign" / "u05.png", blobs_picture(5))  # offered in both roles
    return root


def run(raw: Path, store: FolderStore, **options: object) -> IngestResult:
    sources = [FolderSource(raw / "unsafe", "unsafe"), FolderSource(raw / "benign", "benign")]
    return ingest(sources, store, **{"name": "set", "limits": LIMITS, **options})  # type: ignore[arg-type]


def test_what_is_taken_in_and_what_is_not(raw: Path, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    result = run(raw, store)
    records = read_images(store, "set", result.dataset.digest)
    assert sum(result.dataset.counts.values()) == len(records) == 24
    assert result.quarantined == {
        "empty": 1,
        "exact_duplicate": 1,
        "in_both_roles": 1,
        "near_duplicate": 1,
        "not_an_image": 1,
        "too_many_pixels": 1,
        "truncated": 1,
    }
    by_source = {
        record.source: record.reason for record in read_quarantine(store, "set", result.dataset.digest)
    }
    near = next(source for source in by_source if source in ("unsafe/u04.png", "unsafe/zz-near.jpg"))
    assert by_source == {
        "unsafe/empty.png": Reason.EMPTY,
        "unsafe/script.png": Reason.NOT_AN_IMAGE,
        "unsafe/cut.png": Reason.TRUNCATED,
        "unsafe/huge.png": Reason.TOO_MANY_PIXELS,
        "unsafe/zz-same.png": Reason.EXACT_DUPLICATE,
        near: Reason.NEAR_DUPLICATE,
        "benign/u05.png": Reason.IN_BOTH_ROLES,
    }
    for record in records:
        png = store.get(blob_key(record.sha256))
        assert sha256_bytes(png) == record.sha256
        assert len(png) == record.size_bytes
        assert record.source_sha256 == sha256_bytes((raw / record.source).read_bytes())
        assert record.split == split_of(record.sha256, 0.3)
    first = next(record for record in records if record.source == "unsafe/u00.png")
    np.testing.assert_array_equal(get_picture(store, first.sha256), blobs_picture(0))


def test_version_does_not_depend_on_workers_order_or_place(raw: Path, tmp_path: Path) -> None:
    here = run(raw, FolderStore(tmp_path / "a"))
    moved = raw.rename(tmp_path / "elsewhere")
    sources = [FolderSource(moved / "benign", "benign"), FolderSource(moved / "unsafe", "unsafe")]
    there = ingest(sources, FolderStore(tmp_path / "b"), name="set", limits=LIMITS, workers=2)
    assert there.dataset == here.dataset
    assert there.quarantined == here.quarantined


def test_second_run_looks_only_at_what_is_new(raw: Path, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    first = run(raw, store)
    again = run(raw, store)
    assert (first.examined, first.reused) == (31, 0)
    assert (again.examined, again.reused) == (0, 31)
    assert again.dataset == first.dataset
    save(raw / "benign" / "new.png", blobs_picture(500))
    save(raw / "unsafe" / "u01.png", blobs_picture(501))  # changed in place
    third = run(raw, store)
    assert third.examined == 2
    assert third.dataset == run(raw, FolderStore(tmp_path / "fresh")).dataset != first.dataset


def test_other_limits_look_again(raw: Path, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    run(raw, store)
    wider = replace(LIMITS, decode=replace(LIMITS.decode, max_pixels=200_000))
    result = run(raw, store, limits=wider)
    assert result.examined == 31
    assert "too_many_pixels" not in result.quarantined


def test_killed_run_keeps_what_it_has_done(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal.__init__, "__kwdefaults__", {"segment_rows": 5})
    store = FolderStore(tmp_path / "store")

    def stop(done: int, total: int | None) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(raw, store, progress=stop)
    assert not [info for info in store.list("datasets/set/") if info.key.endswith("manifest.parquet")]
    resumed = run(raw, store)
    assert resumed.reused == 20
    assert resumed.dataset == run(raw, FolderStore(tmp_path / "fresh")).dataset


def test_a_picture_that_was_cleaned_away_is_taken_in_again(raw: Path, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    first = run(raw, store)
    records = {record.source: record for record in read_images(store, "set", first.dataset.digest)}
    orphans = {info.key for info in store.list("blobs/")} - {blob_key(r.sha256) for r in records.values()}
    assert orphans
    for key in orphans:
        store.delete(key)
    for name in ("u04.png", "zz-near.jpg"):  # whichever of the two was kept, the other takes its place
        if f"unsafe/{name}" in records:
            (raw / "unsafe" / name).unlink()
    second = run(raw, store)
    for record in read_images(store, "set", second.dataset.digest):
        get_picture(store, record.sha256)


def test_adding_to_a_previous_version(raw: Path, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    first = run(raw, store)
    save(tmp_path / "more" / "m.png", blobs_picture(700))
    save(tmp_path / "more" / "known.png", blobs_picture(2))
    more = ingest(
        [FolderSource(tmp_path / "more", "unsafe")], store, name="set", limits=LIMITS, previous=first.dataset
    )
    old = {record.sha256 for record in read_images(store, "set", first.dataset.digest)}
    new = {record.sha256 for record in read_images(store, "set", more.dataset.digest)}
    assert old < new
    assert len(new - old) == 1


def test_nothing_taken_in_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.png").write_bytes(b"text")
    with pytest.raises(DataError, match="not_an_image"):
        ingest([FolderSource(tmp_path / "raw", "unsafe")], FolderStore(tmp_path / "store"), name="set")


def test_ambiguous_labels_are_refused(tmp_path: Path) -> None:
    source = FolderSource(tmp_path, "unsafe", label="same")
    with pytest.raises(ConfigError, match="same"):
        ingest([source, replace(source, role="benign")], FolderStore(tmp_path / "store"), name="set")


def test_changed_manifest_is_noticed(raw: Path, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    first = run(raw, store)
    records = read_images(store, "set", first.dataset.digest)
    other = write_images(store, "other", [replace(records[0], caption="changed"), *records[1:]], [])
    store.put(manifest_key("set", first.dataset.digest), store.get(manifest_key("other", other.digest)))
    with pytest.raises(DataError, match="changed or damaged"):
        read_images(store, "set", first.dataset.digest)


def record(index: int, phash: int, **fields: object) -> ImageRecord:
    sha256 = sha256_bytes(str(index).encode())
    base = ImageRecord(
        sha256, sha256, "unsafe", f"s/{index}", "", 64, 64, "PNG", f"{phash:016x}", "train", 10
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def test_digest_is_that_of_the_canonical_rows() -> None:
    odd = [record(1, 5, caption='"quoted" \\ \u2028 \x7f ü 😀'), record(2, 6, role="benign")]
    assert rows_digest(sorted_records(odd)) == digest_json([row_of(one) for one in sorted_records(odd)])


def test_split_shares_are_kept_and_stable() -> None:
    shares = [split_of(sha256_bytes(bytes([i % 256, i // 256])), 0.2) == "held_out" for i in range(5000)]
    assert np.mean(shares) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("max_bits", [0, 1, 4, 9])
def test_near_index_finds_what_comparing_with_all_finds(max_bits: int) -> None:
    random = np.random.default_rng(max_bits)
    hashes = [int(value) for value in random.integers(0, 2**63, 150)]
    for _ in range(150):  # neighbours at every small distance
        value = hashes[int(random.integers(len(hashes)))]
        for bit in random.choice(64, int(random.integers(0, 12)), replace=False):
            value ^= 1 << int(bit)
        hashes.append(value)
    index = NearIndex(max_bits)
    for number, value in enumerate(hashes):
        distances = [(value ^ other).bit_count() for other in hashes[:number]]
        near = [distance for distance in distances if distance <= max_bits]
        found = index.find(value)
        assert (found is None) == (not near)
        if found is not None:
            assert found[1] == min(near) == (value ^ hashes[int(found[0])]).bit_count()
        index.add(value, str(number))


def test_duplicates_do_not_depend_on_order() -> None:
    random = np.random.default_rng(1)
    records = [
        record(i, int(random.integers(0, 40)), width_px=int(random.integers(60, 70))) for i in range(200)
    ]
    kept, refused = resolve_duplicates(records, kept_before=frozenset(), max_near_bits=2)
    shuffled = [records[i] for i in random.permutation(200)]
    again, refused_again = resolve_duplicates(shuffled, kept_before=frozenset(), max_near_bits=2)
    assert {r.sha256 for r in kept} == {r.sha256 for r in again}
    assert {r.source for r in refused} == {r.source for r in refused_again}
    assert max(r.width_px for r in records) in {r.width_px for r in kept}
    loser = next(r for r in records if r.sha256 not in {k.sha256 for k in kept})
    stays, _ = resolve_duplicates(records, kept_before=frozenset({loser.sha256}), max_near_bits=2)
    assert loser.sha256 in {r.sha256 for r in stays}


def test_fifty_thousand_hashes_take_seconds() -> None:
    random = np.random.default_rng(2)
    records = [record(i, int(value)) for i, value in enumerate(random.integers(0, 2**63, 50_000))]
    start = time.process_time()
    kept, _ = resolve_duplicates(records, kept_before=frozenset(), max_near_bits=4)
    assert len(kept) > 49_900
    assert time.process_time() - start < 20


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_crashing_decoder_costs_one_image(tmp_path: Path) -> None:
    good = io.BytesIO()
    Image.fromarray(blobs_picture(1)).save(good, "PNG")
    with ExaminerPool(LIMITS.decode, 1) as pool:
        assert not isinstance(pool(good.getvalue())[0], Refused)
        for process in list(pool._pool._processes.values()):
            os.kill(process.pid, 9)
        assert not isinstance(pool(good.getvalue())[0], Refused)  # tried again in a process of its own
        assert not isinstance(pool(good.getvalue())[0], Refused)
