"""What surrounds NudeNet's net: how a picture becomes its input, and its output detections.

Ours, or those of nudenet 3.4.2, so that numbers published with it can be compared:
    input        channels B, G, R where it reads a file, R, G, B where it is given an RGB array; padded to a square
                 on the right and below, resized by OpenCV's plain bilinear filter on bytes
    label        a cell counts for its best label alone, from 0.2
    box          corner clipped into the picture, width and height to what is left of it
    suppression  OpenCV's NMSBoxes: all labels against each other, above 0.25, IoU 0.45
    rounding     boxes cut to whole pixels
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image

from safegen.detectors.yolo_output import Frame, checked_output, detections_of, suppress_per_label
from safegen.domain.detection import Detection

_UPSTREAM_CELL_FLOOR, _UPSTREAM_FLOOR, _UPSTREAM_NMS_IOU = 0.2, 0.25, 0.45


class Conventions(Protocol):
    """How pictures enter the net and what is made of its output."""

    @property
    def settings(self) -> dict[str, str | float | int | bool]:
        """What the detector's identity says of them."""
        ...

    def fill_input(self, place: Float[np.ndarray, "3 size size"], image: NDArray[np.uint8]) -> None:
        """Write an RGB picture (H, W, 3) into its place in the net's input, values in 0..1."""
        ...

    def detections(
        self, raw: NDArray[np.float32], labels: tuple[str, ...], frame: Frame
    ) -> tuple[Detection, ...]:
        """Turn one picture's raw output (4 + labels, cells) into detections, highest score first.

        Raises:
            EvaluationError: The output is of another shape, or not finite.
        """
        ...


@dataclass(frozen=True, slots=True)
class OwnConventions:
    """Antialiased input, and suppression within each label.

    Attributes:
        channels: Order in which the net is given them.
        score_floor: Scores below are left out.
        nms_iou: Boxes of one label that overlap more are one object.
    """

    channels: Literal["RGB", "BGR"]
    score_floor: float
    nms_iou: float

    @property
    def settings(self) -> dict[str, str | float | int | bool]:
        """As in `Conventions.settings`."""
        return {
            "score_floor": self.score_floor,
            "nms_iou": self.nms_iou,
            "nms": "per label",
            "channels": self.channels,
            "padding": "right and below, black",
            "resize": "bilinear, antialiased",
        }

    def fill_input(self, place: Float[np.ndarray, "3 size size"], image: NDArray[np.uint8]) -> None:
        """As in `Conventions.fill_input`."""
        size = place.shape[1:]
        square = _padded(image)
        if square.shape[:2] != size:
            square = np.asarray(Image.fromarray(square).resize(size, Image.Resampling.BILINEAR))
        ordered = square if self.channels == "RGB" else square[..., ::-1]
        np.divide(ordered.transpose(2, 0, 1), np.float32(255), out=place)

    def detections(
        self, raw: NDArray[np.float32], labels: tuple[str, ...], frame: Frame
    ) -> tuple[Detection, ...]:
        """As in `Conventions.detections`."""
        return detections_of(raw, labels, frame, score_floor=self.score_floor, nms_iou=self.nms_iou)


@dataclass(frozen=True, slots=True)
class UpstreamConventions:
    """Those of nudenet 3.4.2.

    Attributes:
        channels: Order in which the net is given them.
    """

    channels: Literal["RGB", "BGR"]

    @property
    def settings(self) -> dict[str, str | float | int | bool]:
        """As in `Conventions.settings`."""
        return {
            "score_floor": _UPSTREAM_FLOOR,
            "nms_iou": _UPSTREAM_NMS_IOU,
            "nms": "all labels together",
            "channels": self.channels,
            "padding": "right and below, black",
            "resize": "bilinear, no antialiasing",
        }

    def fill_input(self, place: Float[np.ndarray, "3 size size"], image: NDArray[np.uint8]) -> None:
        """As in `Conventions.fill_input`."""
        import cv2

        size = place.shape[1:]
        swap = self.channels == "BGR"
        place[:] = cv2.dnn.blobFromImage(_padded(image), 1 / 255, size, (0, 0, 0), swapRB=swap, crop=False)[0]

    def detections(
        self, raw: NDArray[np.float32], labels: tuple[str, ...], frame: Frame
    ) -> tuple[Detection, ...]:
        """As in `Conventions.detections`."""
        scores = checked_output(raw, labels)[4:]
        cells = np.flatnonzero(scores.max(axis=0) >= _UPSTREAM_CELL_FLOOR)
        best, score = scores[:, cells].argmax(axis=0), scores[:, cells].max(axis=0).astype(np.float64)
        boxes = _upstream_boxes(raw[:4, cells].T.astype(np.float64), frame)
        above = score > _UPSTREAM_FLOOR
        best, score, boxes = best[above], score[above], boxes[above]
        one_label = np.zeros(len(boxes), dtype=np.int64)
        return tuple(
            Detection(labels[best[i]], float(score[i]), tuple(float(int(side)) for side in boxes[i]))  # pyright: ignore[reportArgumentType]  (four sides)
            for i in suppress_per_label(boxes, one_label, score, _UPSTREAM_NMS_IOU)
        )


def _padded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if height == width:
        return image
    side = max(height, width)
    padded = np.zeros((side, side, 3), dtype=np.uint8)
    padded[:height, :width] = image
    return padded


def _upstream_boxes(centred: Float[np.ndarray, "n 4"], frame: Frame) -> Float[np.ndarray, "n 4"]:
    """Clip corners, then sides; a box that began outside keeps its width, unlike ours."""
    limit = np.array([frame.width_px, frame.height_px], dtype=np.float64)
    corner = ((centred[:, :2] - centred[:, 2:] / 2) * np.array(frame.scale)).clip(0, limit)
    sides = np.minimum(centred[:, 2:] * np.array(frame.scale), limit - corner)
    return np.concatenate([corner, sides], axis=1)
