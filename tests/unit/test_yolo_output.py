from __future__ import annotations

import numpy as np
import pytest

from safegen.detectors.yolo_output import Frame, detections_of, suppress_per_label
from safegen.errors import EvaluationError

LABELS = ("EXPOSED", "COVERED", "FACE")
FRAME = Frame((1.0, 1.0), 48, 48)


def raw_of(*cells: tuple[float, ...]) -> np.ndarray:
    return np.array(cells, dtype=np.float32).T


def found(
    raw: np.ndarray, frame: Frame = FRAME, floor: float = 0.2
) -> list[tuple[str, float, tuple[float, ...]]]:
    detections = detections_of(raw, LABELS, frame, score_floor=floor, nms_iou=0.45)
    return [(one.label, round(one.score, 3), tuple(round(side, 3) for side in one.box)) for one in detections]


def test_centre_boxes_become_corner_boxes_scaled_and_clipped_to_the_picture() -> None:
    raw = raw_of((10, 20, 4, 8, 0, 0, 0.9), (47, 24, 10, 10, 0.5, 0, 0), (5, 5, 2, 2, 0.1, 0.1, 0.1))
    wide = Frame((2.0, 0.5), 96, 24)
    assert found(raw, wide) == [("FACE", 0.9, (16, 8, 8, 4)), ("EXPOSED", 0.5, (84, 9.5, 12, 5))]


def test_a_covered_box_hides_no_exposed_one_but_a_double_of_the_same_label_goes() -> None:
    raw = raw_of(
        (20, 20, 10, 10, 0.4, 0.9, 0),  # one cell, two labels
        (21, 20, 10, 10, 0.6, 0, 0),  # overlaps the first by 9/11
        (40, 20, 10, 10, 0.5, 0, 0),  # apart
    )
    assert [(label, score) for label, score, _ in found(raw)] == [
        ("COVERED", 0.9),
        ("EXPOSED", 0.6),
        ("EXPOSED", 0.5),
    ]


def test_suppression_is_greedy_so_a_box_that_went_suppresses_nothing() -> None:
    boxes = np.array(
        [[0, 0, 10, 10], [3, 0, 10, 10], [6, 0, 10, 10]], dtype=np.float64
    )  # IoU 0.54, 0.54, 0.25
    kept = suppress_per_label(boxes, np.zeros(3, dtype=np.int64), np.array([0.9, 0.8, 0.7]), 0.45)
    assert kept == [0, 2]


def test_the_floor_is_inclusive_and_nothing_found_is_an_empty_tuple() -> None:
    raw = raw_of((10, 10, 4, 4, 0.25, 0, 0))
    assert len(found(raw, floor=0.25)) == 1
    assert found(raw, floor=0.26) == []


@pytest.mark.parametrize("row", [0, 4])
def test_an_output_that_is_not_finite_is_an_error_and_never_an_empty_picture(row: int) -> None:
    raw = raw_of((10, 10, 4, 4, 0.1, 0, 0))
    raw[row, 0] = np.nan
    with pytest.raises(EvaluationError, match="not finite"):
        found(raw)


def test_another_number_of_labels_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"shape \(6, 1\)"):
        found(np.zeros((6, 1), dtype=np.float32))
