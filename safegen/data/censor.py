"""Censoring: average regions into blocks until a detector finds nothing in them any more.

A mosaic that is too fine, or the mosaic of a dark blob, may still be taken for the thing itself, the more so after a
VAE has smoothed it. So every censored picture is looked at again, as it is and as the VAE returns it; blocks are
doubled up to the whole region, and regions grow, until it is clean or given up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safegen.data.views import detect_views
from safegen.domain.detection import Detection
from safegen.errors import ConfigError, DataError
from safegen.ports import Detector

Region = tuple[int, int, int, int]
Roundtrip = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class CensorSettings:
    """How pictures are censored.

    Attributes:
        labels: The detector's labels of the concept.
        threshold: The score from which a label is a region to censor, 0..1.
        clean_threshold: A censored picture is clean if every score is below this; at most `threshold`.
        block_px: Side of the first round's blocks; no finer than 4 latent cells.
        dilate_rate: Margin added on each side of a detected box, as a share of its side.
        grow_rate: Margin added on each side of every region per further round, as a share of its side.
        max_rounds: Rounds of coarsening and growing before a picture is given up.
        scales: Views to detect on; see `detect_views`.
        flip: Whether mirrored views are detected on too.
        nms_iou: See `detect_views`.
    """

    labels: frozenset[str]
    threshold: float
    clean_threshold: float
    block_px: int
    dilate_rate: float = 0.1
    grow_rate: float = 0.1
    max_rounds: int = 8
    scales: tuple[float, ...] = (1.0,)
    flip: bool = True
    nms_iou: float = 0.45

    def __post_init__(self) -> None:
        if not self.labels:
            raise ConfigError("no label of the concept is given to censor; give the detector's labels")
        if not 0 < self.clean_threshold <= self.threshold <= 1:
            raise ConfigError(
                f"censoring thresholds {self.clean_threshold} (clean) and {self.threshold} do not fit; "
                "expected 0 < clean_threshold <= threshold <= 1"
            )
        if self.block_px < 1 or self.max_rounds < 1 or min(self.dilate_rate, self.grow_rate) < 0:
            raise ConfigError(f"censoring settings {self} make no sense: expected positive sizes and rounds")


@dataclass(frozen=True, slots=True)
class CensoredImage:
    """A picture in which the detector finds the concept no more.

    Attributes:
        pixels: [height, width, 3] uint8 RGB.
        regions: x, y, width, height of what was averaged; they do not overlap.
        rounds: How many rounds it took, from 1.
        block_px: Side of the last round's blocks.
    """

    pixels: NDArray[np.uint8]
    regions: tuple[Region, ...]
    rounds: int
    block_px: int


@dataclass(frozen=True, slots=True)
class NotCensored:
    """A picture that could not be censored.

    Attributes:
        found: Whether the detector found the concept in the picture at all.
        detail: What it found last, for the quarantine.
    """

    found: bool
    detail: str


@dataclass(frozen=True, slots=True)
class _Work:
    number: int
    regions: tuple[Region, ...]
    block_px: int


def mosaic(pixels: NDArray[np.uint8], regions: Sequence[Region], block_px: int) -> NDArray[np.uint8]:
    """Average each region over a grid of blocks.

    A region is cut into as many equal blocks as fit without being finer than `block_px`, at least one.

    Args:
        pixels: [height, width, 3] uint8 RGB; not changed.
        regions: x, y, width, height, each inside the picture and not empty.
        block_px: Least side of a block, unless the region itself is smaller.

    Returns:
        A new picture of the same shape.
    """
    censored = pixels.copy()
    for x, y, width, height in regions:
        rows, columns = _edges(height, block_px), _edges(width, block_px)
        part = pixels[y : y + height, x : x + width].astype(np.float64)
        sums = np.add.reduceat(
            np.add.reduceat(part, rows[:-1], axis=0), columns[:-1], axis=1
        )  # [rows, columns, 3]
        tall, wide = np.diff(rows), np.diff(columns)
        means = np.rint(sums / (tall[:, None] * wide[None, :])[..., None]).astype(np.uint8)
        censored[y : y + height, x : x + width] = means.repeat(tall, axis=0).repeat(wide, axis=1)
    return censored


def censor_images(
    images: NDArray[np.uint8], detector: Detector, roundtrip: Roundtrip, settings: CensorSettings
) -> list[CensoredImage | NotCensored]:
    """Censor a batch of pictures of one size.

    Args:
        images: [batch, height, width, 3] uint8 RGB.
        detector: Finds the concept.
        roundtrip: Encodes and decodes a batch as the model's VAE does, same shape, dtype and range.
        settings: How.

    Returns:
        One outcome per picture, in order.

    Raises:
        DataError: `roundtrip` returned something else than a batch of pictures of the same shape.
        EvaluationError: The detector did not answer for every view.
    """
    outcomes: list[CensoredImage | NotCensored] = [NotCensored(False, "the concept was not found")] * len(
        images
    )
    work = _first_work(images, detector, settings)
    for rounds in range(1, settings.max_rounds + 1):
        if not work:
            break
        censored = np.stack([mosaic(images[one.number], one.regions, one.block_px) for one in work])
        left = _what_is_left(censored, detector, roundtrip, settings)
        again: list[_Work] = []
        for one, pixels, found in zip(work, censored, left, strict=True):
            if not found:
                outcomes[one.number] = CensoredImage(pixels, one.regions, rounds, one.block_px)
                continue
            best = max(found, key=lambda detection: detection.score)
            detail = (
                f"{best.label} scores {best.score:.3f} after {rounds} rounds, blocks of {one.block_px} px"
            )
            outcomes[one.number] = NotCensored(True, detail)
            again.append(_next_work(one, found, images.shape[1:3], settings))
        work = again
    return outcomes


def _first_work(images: NDArray[np.uint8], detector: Detector, settings: CensorSettings) -> list[_Work]:
    found = _detect(images, detector, settings, settings.threshold)
    size = images.shape[1:3]
    return [
        _Work(
            number,
            _merged([_region(one, settings.dilate_rate, size) for one in detections]),
            settings.block_px,
        )
        for number, detections in enumerate(found)
        if detections
    ]


def _next_work(
    work: _Work, found: Sequence[Detection], size: tuple[int, ...], settings: CensorSettings
) -> _Work:
    """Double the blocks, up to the largest region; grow the regions, and add what was found in or beside them."""
    grown = [_dilated(region, settings.grow_rate, size) for region in work.regions]
    regions = _merged([*grown, *(_region(one, settings.dilate_rate, size) for one in found)])
    whole = max(max(region[2:]) for region in regions)
    return _Work(work.number, regions, min(2 * work.block_px, max(whole, settings.block_px)))


def _what_is_left(
    censored: NDArray[np.uint8], detector: Detector, roundtrip: Roundtrip, settings: CensorSettings
) -> list[list[Detection]]:
    returned = roundtrip(censored)
    if returned.shape != censored.shape or returned.dtype != np.uint8:
        raise DataError(
            f"the round trip returned {returned.dtype}{returned.shape}; expected uint8{censored.shape}"
        )
    both = _detect(np.concatenate([censored, returned]), detector, settings, settings.clean_threshold)
    return [
        [*plain, *coded] for plain, coded in zip(both[: len(censored)], both[len(censored) :], strict=True)
    ]


def _detect(
    images: NDArray[np.uint8], detector: Detector, settings: CensorSettings, threshold: float
) -> list[list[Detection]]:
    found = detect_views(
        detector, list(images), scales=settings.scales, flip=settings.flip, nms_iou=settings.nms_iou
    )
    return [
        [one for one in each if one.label in settings.labels and one.score >= threshold] for each in found
    ]


def _region(detection: Detection, margin_rate: float, size: tuple[int, ...]) -> Region:
    x, y, width, height = detection.box
    left, top = int(np.floor(x)), int(np.floor(y))
    whole = (left, top, int(np.ceil(x + width)) - left, int(np.ceil(y + height)) - top)
    return _dilated(whole, margin_rate, size)


def _dilated(region: Region, margin_rate: float, size: tuple[int, ...]) -> Region:
    """Add a margin on each side, at least 1 px if there is one at all, within the picture."""
    x, y, width, height = region
    margin_x, margin_y = int(np.ceil(width * margin_rate)), int(np.ceil(height * margin_rate))
    left, top = max(0, x - margin_x), max(0, y - margin_y)
    right, bottom = min(size[1], x + width + margin_x), min(size[0], y + height + margin_y)
    return left, top, right - left, bottom - top


def _merged(regions: Sequence[Region]) -> tuple[Region, ...]:
    """Replace regions that overlap by the region around them, until none do: the result needs no order."""
    merged = sorted(set(regions))
    for number, one in enumerate(merged):
        for other in merged[number + 1 :]:
            if _overlap(one, other):
                rest = [region for region in merged if region not in (one, other)]
                return _merged([*rest, _around(one, other)])
    return tuple(merged)


def _overlap(one: Region, other: Region) -> bool:
    across = min(one[0] + one[2], other[0] + other[2]) > max(one[0], other[0])
    return across and min(one[1] + one[3], other[1] + other[3]) > max(one[1], other[1])


def _around(one: Region, other: Region) -> Region:
    x, y = min(one[0], other[0]), min(one[1], other[1])
    right, bottom = max(one[0] + one[2], other[0] + other[2]), max(one[1] + one[3], other[1] + other[3])
    return x, y, right - x, bottom - y


def _edges(length: int, block_px: int) -> NDArray[np.int64]:
    """Return where blocks begin and end along one side: equal to within a pixel, none finer than `block_px`."""
    return np.linspace(0, length, max(1, length // block_px) + 1).round().astype(np.int64)
