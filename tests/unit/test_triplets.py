"""Triplets: censored pictures in the store, partners drawn by seed, failures in quarantine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from safegen.adapters.folder_store import FolderStore
from safegen.data.censor import CensorSettings, mosaic
from safegen.data.manifest import read_quarantine, read_triplets
from safegen.data.picture import get_picture, put_picture
from safegen.data.triplets import TripletSettings, build_triplets, fit_square, lookalike_digests
from safegen.domain.dataset import ImageRecord, Reason, Role
from safegen.domain.detection import Detection, DetectorIdentity
from safegen.errors import DataError

SIDE = 48
CENSOR = CensorSettings(frozenset({"red"}), threshold=0.3, clean_threshold=0.3, block_px=8)
SETTINGS = TripletSettings(SIDE, CENSOR, batch_size=3)


class RedBlobs:
    """Finds the box around saturated red; its score is how red the reddest part is."""

    identity = DetectorIdentity("red-blobs", "1", "0" * 64)
    labels = ("red",)

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        return [self._one(image.astype(int)) for image in images]

    def _one(self, image: NDArray[np.int64]) -> tuple[Detection, ...]:
        redness = image[..., 0] - image[..., 1:].max(axis=-1)
        rows, columns = np.nonzero(redness >= 60)
        if rows.size == 0:
            return ()
        box = (float(columns.min()), float(rows.min()), float(np.ptp(columns) + 1), float(np.ptp(rows) + 1))
        return (Detection("red", float(redness.max() / 255), box),)


def unchanged(batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return batch


def add(
    store: FolderStore, role: Role, number: int, size: tuple[int, int] = (SIDE, SIDE), **fields: object
) -> ImageRecord:
    random = np.random.default_rng([number, role == "unsafe"])
    pixels = random.integers(90, 140, (*size, 3), dtype=np.uint8)
    if role == "unsafe":
        pixels[15:27, 12 + number : 24 + number] = (235, 15, 15)
    sha256 = put_picture(store, pixels)
    record = ImageRecord(
        sha256,
        sha256,
        role,
        f"{role}/{number}",
        f"a {role} thing",
        size[1],
        size[0],
        "PNG",
        "0" * 16,
        "train",
        1,
    )
    return replace(record, **fields)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def records(store: FolderStore) -> list[ImageRecord]:
    unsafe = [add(store, "unsafe", number) for number in range(7)]
    benign = [add(store, "benign", number) for number in range(4)]
    alike = [add(store, "benign", number, caption="a Wrench on blue") for number in range(10, 13)]
    held_out = [add(store, "unsafe", 20, split="held_out"), add(store, "benign", 21, split="held_out")]
    return [*unsafe, *benign, *alike, *held_out]


def test_triplets_hold_what_an_edit_needs(store: FolderStore, records: list[ImageRecord]) -> None:
    result = build_triplets(records, store, RedBlobs(), unchanged, name="set-triplets", settings=SETTINGS)
    triplets = read_triplets(store, "set-triplets", result.dataset.digest)
    assert result.dataset.counts == {"triplets": 7}
    assert {one.unsafe_origin_sha for one in triplets} == {r.sha256 for r in records[:7]}
    train_benign = {
        record.sha256 for record in records if record.role == "benign" and record.split == "train"
    }
    for one in triplets:
        unsafe, censored = get_picture(store, one.unsafe_sha), get_picture(store, one.censored_sha)
        assert RedBlobs().detect([unsafe])[0][0].score > 0.3
        assert all(found.score < 0.3 for found in RedBlobs().detect([censored])[0])
        regions = [tuple(region) for region in json.loads(one.boxes)]
        np.testing.assert_array_equal(censored, mosaic(unsafe, regions, one.block_px))
        assert one.benign_origin_sha in train_benign
        assert get_picture(store, one.benign_sha).shape == (SIDE, SIDE, 3)
        assert one.unsafe_caption == "a unsafe thing"


def test_the_same_input_gives_the_same_version(
    store: FolderStore, records: list[ImageRecord], tmp_path: Path
) -> None:
    first = build_triplets(records, store, RedBlobs(), unchanged, name="t", settings=SETTINGS)
    settings = replace(SETTINGS, batch_size=16)
    again = build_triplets(records[::-1], store, RedBlobs(), unchanged, name="t", settings=settings)
    assert again.dataset == first.dataset
    other = build_triplets(
        records, store, RedBlobs(), unchanged, name="t", settings=replace(SETTINGS, seed=1)
    )
    assert other.dataset.digest != first.dataset.digest


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.3, 2), (1.0, 7)])
def test_share_of_lookalikes(
    store: FolderStore, records: list[ImageRecord], share: float, expected: int
) -> None:
    alike = lookalike_digests(records, {"wrench", "hammer"})
    assert alike == {record.sha256 for record in records[11:14]}
    settings = replace(SETTINGS, lookalike_share=share)
    result = build_triplets(
        records, store, RedBlobs(), unchanged, name="t", settings=settings, lookalikes=alike
    )
    triplets = read_triplets(store, "t", result.dataset.digest)
    assert sum(one.benign_origin_sha in alike for one in triplets) == expected
    assert sum(one.lookalike for one in triplets) == expected
    partners = [one.benign_origin_sha for one in triplets if one.benign_origin_sha in alike]
    assert max([partners.count(one) for one in partners], default=0) <= -(-expected // 3)


def test_lookalike_words_are_whole_words(records: list[ImageRecord]) -> None:
    assert lookalike_digests(records, {"ren"}) == lookalike_digests(records, set()) == frozenset()


def test_pictures_that_cannot_be_censored_are_quarantined(
    store: FolderStore, records: list[ImageRecord]
) -> None:
    red = np.empty((SIDE, SIDE, 3), np.uint8)
    red[:] = (235, 15, 15)
    all_red = replace(records[0], sha256=put_picture(store, red), source="unsafe/all red")
    grey = replace(records[0], sha256=put_picture(store, red // 2 * 0 + 100), source="unsafe/grey")
    result = build_triplets(
        [*records, all_red, grey], store, RedBlobs(), unchanged, name="t", settings=SETTINGS
    )
    refused = {one.source: one.reason for one in read_quarantine(store, "t", result.dataset.digest)}
    assert refused == {"unsafe/all red": Reason.CENSOR_FAILED, "unsafe/grey": Reason.CONCEPT_NOT_SHOWN}
    assert result.quarantined == {"censor_failed": 1, "concept_not_shown": 1}
    assert result.dataset.counts == {"triplets": 7}


def test_pictures_of_other_sizes_are_fitted(store: FolderStore, records: list[ImageRecord]) -> None:
    large = [add(store, "unsafe", 30, (96, 160)), add(store, "benign", 31, (200, 60))]
    result = build_triplets(large, store, RedBlobs(), unchanged, name="t", settings=SETTINGS)
    (one,) = read_triplets(store, "t", result.dataset.digest)
    assert one.unsafe_origin_sha == large[0].sha256 != one.unsafe_sha
    for sha256 in (one.unsafe_sha, one.censored_sha, one.benign_sha):
        assert get_picture(store, sha256).shape == (SIDE, SIDE, 3)
    tall = np.zeros((90, 30, 3), np.uint8)
    tall[30:60] = 200
    assert (fit_square(tall, 10) == 200).all()


def test_what_is_missing_is_said(store: FolderStore, records: list[ImageRecord]) -> None:
    def build(chosen: list[ImageRecord], **fields: object) -> None:
        settings = replace(SETTINGS, **fields)  # type: ignore[arg-type]
        build_triplets(chosen, store, RedBlobs(), unchanged, name="t", settings=settings)

    with pytest.raises(DataError, match="no unsafe training image"):
        build([record for record in records if record.role == "benign"])
    with pytest.raises(DataError, match="0 look-alikes"):
        build(records, lookalike_share=0.5)
    with pytest.raises(DataError, match="not one of 1"):
        build([replace(records[8], role="unsafe"), *records[9:12]])
    build(records, max_triplets=2)
