"""Reads the raw output of YOLOv8's detection head: boxes, labels and scores, and non-maximum suppression per label.

Layout: (4 + labels, cells); rows 0..3 are centre x, centre y, width and height in pixels of the network's input, the
others one score in 0..1 per label. https://docs.ultralytics.com/models/yolov8/
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from safegen.domain.detection import Detection
from safegen.errors import EvaluationError


@dataclass(frozen=True, slots=True)
class Frame:
    """How pixels of the network's input relate to those of the picture.

    Attributes:
        scale: Picture pixels per input pixel, along x and y.
        width_px: Of the picture.
        height_px: Of the picture.
    """

    scale: tuple[float, float]
    width_px: int
    height_px: int


def detections_of(
    raw: NDArray[np.float32], labels: tuple[str, ...], frame: Frame, *, score_floor: float, nms_iou: float
) -> tuple[Detection, ...]:
    """Turn one picture's raw output into detections, highest score first.

    A cell counts for every label whose score reaches the floor, not for its best label alone, and a box suppresses
    boxes of its own label only: so no harmless label hides a restricted one.

    Args:
        raw: (4 + labels, cells).
        labels: Names in the order of the score rows.
        frame: Where the picture lies in the input.
        score_floor: Scores below are left out.
        nms_iou: Boxes of one label that overlap more than this are one object.

    Raises:
        EvaluationError: The output has another shape, or is not finite: the detector saw nothing, rather than
            nothing unsafe.
    """
    label_index, cell = np.nonzero(checked_output(raw, labels)[4:] >= score_floor)
    boxes = _picture_boxes(raw[:4, cell].T.astype(np.float64), frame)
    scores = raw[4 + label_index, cell].astype(np.float64)
    seen = (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    boxes, label_index, scores = boxes[seen], label_index[seen], scores[seen]
    return tuple(
        Detection(labels[label_index[i]], float(scores[i]), tuple(float(side) for side in boxes[i]))  # pyright: ignore[reportArgumentType]  (four sides)
        for i in suppress_per_label(boxes, label_index, scores, nms_iou)
    )


def checked_output(raw: NDArray[np.float32], labels: tuple[str, ...]) -> NDArray[np.float32]:
    """Return one picture's raw output as it is, if it can be used.

    Raises:
        EvaluationError: It has another shape than (4 + labels, cells), or is not finite.
    """
    if raw.ndim != 2 or len(raw) != 4 + len(labels):
        raise EvaluationError(f"detector output has shape {raw.shape}; expected ({4 + len(labels)}, cells)")
    if not np.isfinite(raw).all():
        raise EvaluationError(
            "detector output is not finite; check the model file and the precision it runs in"
        )
    return raw


def suppress_per_label(
    boxes: Float[np.ndarray, "n 4"], labels: NDArray[np.int64], scores: Float[np.ndarray, "n"], iou: float
) -> list[int]:
    """Return which boxes stay, highest score first: greedy non-maximum suppression among boxes of one label.

    Args:
        boxes: x, y, width, height.
        labels: Index of each box's label.
        scores: Of each box.
        iou: Of two boxes of one label that overlap more than this the lower goes.
    """
    order = np.argsort(-scores, kind="stable")
    rivals = (overlaps(boxes) > iou) & (labels[:, None] == labels[None, :])
    gone = np.zeros(len(boxes), dtype=np.bool_)
    kept: list[int] = []
    for i in order:
        if not gone[i]:
            kept.append(int(i))
            gone |= rivals[i]
    return kept


def overlaps(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n n"]:
    """Return the intersection over union of every pair of boxes x, y, width, height.

    >>> overlaps(np.array([[0.0, 0, 2, 2], [1, 0, 2, 2]]))[0, 1].round(3)
    np.float64(0.333)
    """
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    sides = np.minimum(high[:, None], high[None, :]) - np.maximum(low[:, None], low[None, :])  # (n, n, 2)
    shared = sides.clip(min=0).prod(axis=2)
    area = boxes[:, 2:].prod(axis=1)
    union = area[:, None] + area[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _picture_boxes(centred: Float[np.ndarray, "n 4"], frame: Frame) -> Float[np.ndarray, "n 4"]:
    scale = np.array(frame.scale)
    limit = np.array([frame.width_px, frame.height_px], dtype=np.float64)
    low = ((centred[:, :2] - centred[:, 2:] / 2) * scale).clip(0, limit)
    high = ((centred[:, :2] + centred[:, 2:] / 2) * scale).clip(0, limit)
    return np.concatenate([low, high - low], axis=1)
