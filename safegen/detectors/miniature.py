"""The miniature's detector: weapons and other emoji in pictures of 48 x 48 px."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from safegen.detectors.onnx_session import OnnxModel
from safegen.detectors.yolo_output import Frame, detections_of
from safegen.domain.detection import Detection, DetectorIdentity
from safegen.domain.digests import sha256_file
from safegen.errors import DataError

_INPUT_PX = 48
_NAME, _VERSION = "miniature", "1"


class MiniatureDetector:
    """Detector of the miniature's objects; implements `safegen.ports.Detector`.

    Pictures of another size are brought to 48 x 48 px by a box filter and boxes are given in the picture's own pixels.
    """

    def __init__(
        self,
        model_file: Path,
        *,
        score_floor: float = 0.05,
        nms_iou: float = 0.45,
        threads: int = 1,
        batch_size: int = 64,
    ) -> None:
        """Open the detector.

        Args:
            model_file: ONNX file whose metadata key `names` lists the labels, as YOLO has it.
            score_floor: Detections below are not returned.
            nms_iou: Boxes of one label that overlap more are one object.
            threads: Of one inference.
            batch_size: Pictures in one inference.

        Raises:
            DataError: The file is missing, no ONNX model, or names no labels.
        """
        self._model = OnnxModel(model_file, threads=threads)
        self._labels = _labels_of(self._model, model_file)
        self._score_floor, self._nms_iou, self._batch_size = score_floor, nms_iou, batch_size
        self._identity = DetectorIdentity(
            name=_NAME,
            version=_VERSION,
            model_sha256=sha256_file(model_file),
            settings={"score_floor": score_floor, "nms_iou": nms_iou, "input_px": _INPUT_PX, "resize": "box"},
        )

    @property
    def identity(self) -> DetectorIdentity:
        """As in `Detector.identity`."""
        return self._identity

    @property
    def labels(self) -> tuple[str, ...]:
        """As in `Detector.labels`."""
        return self._labels

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        """Detect objects in each picture; see `Detector.detect`.

        Raises:
            EvaluationError: The model failed.
        """
        found: list[tuple[Detection, ...]] = []
        for start in range(0, len(images), self._batch_size):
            part = images[start : start + self._batch_size]
            raw = self._model.run(np.stack([_network_input(image) for image in part]))
            found += [self._detections(output, image) for output, image in zip(raw, part, strict=True)]
        return found

    def _detections(self, raw: NDArray[np.float32], image: NDArray[np.uint8]) -> tuple[Detection, ...]:
        height, width = image.shape[:2]
        frame = Frame((width / _INPUT_PX, height / _INPUT_PX), width, height)
        return detections_of(raw, self._labels, frame, score_floor=self._score_floor, nms_iou=self._nms_iou)


def _network_input(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    if image.shape[:2] != (_INPUT_PX, _INPUT_PX):
        image = np.asarray(Image.fromarray(image).resize((_INPUT_PX, _INPUT_PX), Image.Resampling.BOX))
    return (np.asarray(image, dtype=np.float32) / np.float32(255)).transpose(2, 0, 1)


def _labels_of(model: OnnxModel, path: Path) -> tuple[str, ...]:
    try:
        names = ast.literal_eval(model.metadata["names"])
        return tuple(str(names[index]) for index in range(len(names)))
    except (KeyError, ValueError, SyntaxError, TypeError) as error:
        raise DataError(
            f"detector model {path}: its metadata has no usable key 'names'; expected {{0: 'LABEL', ...}} as in YOLO"
        ) from error
