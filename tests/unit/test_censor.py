"""Mosaics, views, and censoring that goes on until the detector is content."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from safegen.data.censor import CensoredImage, CensorSettings, NotCensored, censor_images, mosaic
from safegen.data.views import detect_views, suppress_overlaps
from safegen.domain.detection import Detection, DetectorIdentity
from safegen.errors import ConfigError, DataError

RED = (230, 20, 20)


class RedBlobs:
    """Finds the box around saturated red; its score is how red the reddest part is."""

    identity = DetectorIdentity("red-blobs", "1", "0" * 64)
    labels = ("red", "green")

    def __init__(self, least: int = 60) -> None:
        self.least = least

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        return [self._one(image.astype(int)) for image in images]

    def _one(self, image: NDArray[np.int64]) -> tuple[Detection, ...]:
        redness = image[..., 0] - image[..., 1:].max(axis=-1)
        rows, columns = np.nonzero(redness >= self.least)
        if rows.size == 0:
            return ()
        box = (float(columns.min()), float(rows.min()), float(np.ptp(columns) + 1), float(np.ptp(rows) + 1))
        return (Detection("red", float(redness.max() / 255), box),)


def scene(x: int = 20, y: int = 24, width: int = 12, height: int = 8, side: int = 64) -> NDArray[np.uint8]:
    ramp = np.linspace(100, 160, side)
    image = np.stack([np.add.outer(ramp, ramp) / 2] * 3, axis=-1).astype(np.uint8)
    image[y : y + height, x : x + width] = RED
    return image


def settings(**fields: object) -> CensorSettings:
    base = {"labels": frozenset({"red"}), "threshold": 0.3, "clean_threshold": 0.3, "block_px": 4}
    return CensorSettings(**{**base, **fields})  # type: ignore[arg-type]


def unchanged(batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return batch


def test_mosaic_is_the_mean_of_each_block() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    censored = mosaic(pixels, [(4, 2, 16, 12)], 8)
    for top, height in ((2, 12),):  # 12 px hold one block of at least 8
        for left in (4, 12):
            block = pixels[top : top + height, left : left + 8].reshape(-1, 3)
            assert (censored[top : top + height, left : left + 8] == np.rint(block.mean(axis=0))).all()
    outside = np.ones((20, 30), bool)
    outside[2:14, 4:20] = False
    np.testing.assert_array_equal(censored[outside], pixels[outside])


@pytest.mark.parametrize("block_px", [3, 5, 8, 50])
def test_blocks_are_never_finer_than_asked(block_px: int) -> None:
    pixels = np.arange(40 * 40 * 3).reshape(40, 40, 3).astype(np.uint8)
    pixels[:] = np.random.default_rng(1).integers(0, 256, pixels.shape)
    censored = mosaic(pixels, [(3, 5, 31, 17)], block_px)[5:22, 3:34]
    changes = np.flatnonzero((np.diff(censored.astype(int), axis=1) != 0).any(axis=(0, 2)))
    assert len(changes) == max(1, 31 // block_px) - 1
    assert (np.diff(changes) >= block_px).all()


def test_whole_region_becomes_one_colour() -> None:
    censored = mosaic(scene(), [(10, 10, 30, 30)], 30)
    assert len(np.unique(censored[10:40, 10:40].reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("flip", [False, True])
def test_views_find_the_same_box(scale: float, flip: bool) -> None:
    (found,) = detect_views(RedBlobs(), [scene(9, 40)], scales=(scale,), flip=flip)
    left = min(one.box[0] for one in found)
    right = max(one.box[0] + one.box[2] for one in found)
    top = min(one.box[1] for one in found)
    bottom = max(one.box[1] + one.box[3] for one in found)
    assert (left, top, right, bottom) == (9, 40, 21, 48)


class LeftHalfOnly(RedBlobs):
    """Blind on the right, so that only the mirrored view shows what is there."""

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        return [tuple(d for d in each if d.box[0] < 20) for each in super().detect(images)]


def test_mirrored_view_adds_what_the_plain_one_misses() -> None:
    image = scene(50, 30)
    assert detect_views(LeftHalfOnly(), [image], flip=False) == [()]
    ((found,),) = detect_views(LeftHalfOnly(), [image], flip=True)
    assert found.box == (50, 30, 12, 8)


def test_suppression_is_within_a_label() -> None:
    boxes = [
        Detection("red", 0.9, (0, 0, 10, 10)),
        Detection("red", 0.5, (1, 0, 10, 10)),
        Detection("green", 0.4, (0, 0, 10, 10)),
        Detection("red", 0.3, (30, 0, 10, 10)),
    ]
    assert [one.score for one in suppress_overlaps(boxes, 0.45)] == [0.9, 0.4, 0.3]
    assert [one.score for one in suppress_overlaps(boxes, 0.9)] == [0.9, 0.5, 0.4, 0.3]


def test_censored_pictures_are_clean_also_after_the_round_trip() -> None:
    images = np.stack([scene(), scene(2, 2, 20, 20), scene(50, 50, 14, 14)])
    outcomes = censor_images(images, RedBlobs(), unchanged, settings())
    for image, outcome in zip(images, outcomes, strict=True):
        assert isinstance(outcome, CensoredImage)
        assert all(one.score < 0.3 for one in RedBlobs().detect([outcome.pixels])[0])
        assert outcome.rounds > 1  # red blocks inside a red thing are still red
        changed = (outcome.pixels != image).any(axis=-1)
        inside = np.zeros_like(changed)
        for x, y, width, height in outcome.regions:
            inside[y : y + height, x : x + width] = True
        assert not changed[~inside].any()


def test_what_only_the_round_trip_shows_is_censored_too() -> None:
    def reddens(batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A decoder that brings saturated colours back."""
        grey = batch.astype(float).mean(axis=-1, keepdims=True)
        return (grey + 2.5 * (batch - grey)).clip(0, 255).astype(np.uint8)

    (plain,) = censor_images(scene()[None], RedBlobs(), unchanged, settings())
    (coded,) = censor_images(scene()[None], RedBlobs(), reddens, settings())
    assert isinstance(plain, CensoredImage)
    assert isinstance(coded, CensoredImage)
    assert coded.rounds > plain.rounds
    assert all(one.score < 0.3 for one in RedBlobs().detect(list(reddens(coded.pixels[None])))[0])


def test_hopeless_and_empty_pictures_are_told_apart() -> None:
    all_red = np.empty((1, 32, 32, 3), np.uint8)
    all_red[:] = RED
    (hopeless,) = censor_images(all_red, RedBlobs(), unchanged, settings(max_rounds=4))
    assert hopeless == NotCensored(found=True, detail="red scores 0.824 after 4 rounds, blocks of 32 px")
    (empty,) = censor_images(scene(width=0)[None], RedBlobs(), unchanged, settings())
    assert isinstance(empty, NotCensored)
    assert not empty.found


def test_other_labels_are_left_alone() -> None:
    (outcome,) = censor_images(scene()[None], RedBlobs(), unchanged, settings(labels=frozenset({"green"})))
    assert isinstance(outcome, NotCensored)
    assert not outcome.found


def test_wrong_settings_and_round_trips_are_refused() -> None:
    with pytest.raises(ConfigError, match="clean_threshold"):
        settings(clean_threshold=0.5)
    with pytest.raises(ConfigError, match="label"):
        settings(labels=frozenset())
    with pytest.raises(DataError, match="round trip"):
        censor_images(scene()[None], RedBlobs(), lambda batch: batch[:, ::2], settings())
