"""Detection on several views of a picture: what one view hides, another shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safegen.domain.detection import Detection
from safegen.errors import EvaluationError
from safegen.ports import Detector

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class _View:
    """Part of a picture (or the picture on a larger canvas), perhaps mirrored."""

    pixels: NDArray[np.uint8]
    left: int
    top: int
    mirrored: bool

    def to_picture(self, detection: Detection) -> Detection:
        x, y, width, height = detection.box
        if self.mirrored:
            x = self.pixels.shape[1] - x - width
        return Detection(detection.label, detection.score, (x + self.left, y + self.top, width, height))


def detect_views(
    detector: Detector,
    images: Sequence[NDArray[np.uint8]],
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = True,
    nms_iou: float = 0.45,
) -> list[tuple[Detection, ...]]:
    """Return the union of a detector's findings over scaled and mirrored views, after NMS within each label.

    Scales are made of crops and canvases, not by resizing, because most detectors resize their input themselves:
    at scale s > 1 the picture is covered by overlapping crops of 1/s its size; at s < 1 it is laid on a canvas of
    1/s its size in the colour of its border.

    Args:
        detector: Looks at each view.
        images: [height, width, 3] uint8 RGB each; sizes may differ.
        scales: Magnifications, each > 0.
        flip: Whether every view is also looked at mirrored.
        nms_iou: Of two boxes of one label that overlap more than this, the one with the lower score goes.

    Returns:
        For each image its detections in its own pixels, clipped to it, highest score first.

    Raises:
        EvaluationError: The detector did not answer for every view.
    """
    views = [
        (number, view) for number, image in enumerate(images) for view in _views(image, scales, flip=flip)
    ]
    answers = detector.detect([view.pixels for _, view in views])
    if len(answers) != len(views):
        raise EvaluationError(f"{detector.identity.name} answered for {len(answers)} of {len(views)} views")
    found: list[list[Detection]] = [[] for _ in images]
    for (number, view), detections in zip(views, answers, strict=True):
        clipped = (_clip(view.to_picture(one), images[number]) for one in detections)
        found[number] += [one for one in clipped if one is not None]
    return [suppress_overlaps(detections, nms_iou) for detections in found]


def suppress_overlaps(detections: Sequence[Detection], nms_iou: float) -> tuple[Detection, ...]:
    """Return the detections after greedy non-maximum suppression within each label, highest score first.

    Args:
        detections: In one picture.
        nms_iou: Largest intersection over union that two boxes of one label may have.
    """
    kept: list[Detection] = []
    for one in sorted(detections, key=lambda one: (-one.score, one.label, one.box)):
        if all(one.label != other.label or _iou(one.box, other.box) <= nms_iou for other in kept):
            kept.append(one)
    return tuple(kept)


def _views(image: NDArray[np.uint8], scales: Sequence[float], *, flip: bool) -> list[_View]:
    views: list[_View] = []
    for scale in scales:
        views += _scaled(image, scale)
    if flip:
        views += [_View(np.ascontiguousarray(v.pixels[:, ::-1]), v.left, v.top, mirrored=True) for v in views]
    return views


def _scaled(image: NDArray[np.uint8], scale: float) -> list[_View]:
    height, width, _ = image.shape
    if scale == 1:
        return [_View(image, 0, 0, mirrored=False)]
    if scale < 1:
        pad_y, pad_x = (round(side * (1 / scale - 1) / 2) for side in (height, width))
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        canvas = np.empty((height + 2 * pad_y, width + 2 * pad_x, 3), np.uint8)
        canvas[:] = np.median(border, axis=0).astype(np.uint8)
        canvas[pad_y : pad_y + height, pad_x : pad_x + width] = image
        return [_View(canvas, -pad_x, -pad_y, mirrored=False)]
    crop_y, crop_x = max(1, round(height / scale)), max(1, round(width / scale))
    steps = int(np.ceil(2 * scale)) - 1  # neighbours overlap by half at least
    return [
        _View(
            np.ascontiguousarray(image[top : top + crop_y, left : left + crop_x]), left, top, mirrored=False
        )
        for top in sorted({round(part) for part in np.linspace(0, height - crop_y, steps)})
        for left in sorted({round(part) for part in np.linspace(0, width - crop_x, steps)})
    ]


def _clip(detection: Detection, image: NDArray[np.uint8]) -> Detection | None:
    x, y, width, height = detection.box
    right, bottom = min(x + width, image.shape[1]), min(y + height, image.shape[0])
    x, y = max(x, 0.0), max(y, 0.0)
    if right <= x or bottom <= y:
        return None
    return Detection(detection.label, detection.score, (x, y, right - x, bottom - y))


def _iou(one: Box, other: Box) -> float:
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    if across <= 0 or down <= 0:
        return 0.0
    shared = across * down
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)
