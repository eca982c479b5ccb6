"""NudeNet (https://github.com/notAI-tech/NudeNet), run directly on the model file that its wheel carries.

What differs from `nudenet.NudeDetector`, each on purpose:
    channels   always RGB. Upstream feeds BGR when it is given a path or bytes (its issue 203), and scores fall.
    NMS        per label. Upstream's lets a COVERED box hide an EXPOSED one.
    floor      0.2 as its code says; upstream's NMSBoxes call raises it to 0.25.
    resize     bilinear with antialiasing. Upstream's skips pixels when it reduces.
Padding is upstream's: to a square, black, to the right and below.

The wheel's metadata says MIT, the LICENSE file inside says AGPL-3.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from safegen.detectors.onnx_session import OnnxModel
from safegen.detectors.yolo_output import Frame, detections_of
from safegen.domain.detection import Detection, DetectorIdentity
from safegen.domain.digests import sha256_file
from safegen.errors import DataError

LABELS: tuple[str, ...] = (
    "FEMALE_GENITALIA_COVERED",
    "FACE_FEMALE",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "ANUS_EXPOSED",
    "FEET_EXPOSED",
    "BELLY_COVERED",
    "FEET_COVERED",
    "ARMPITS_COVERED",
    "ARMPITS_EXPOSED",
    "FACE_MALE",
    "BELLY_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "ANUS_COVERED",
    "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
)
"""In the order of the model's outputs."""

EXPLICIT_LABELS: tuple[str, ...] = (
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "BUTTOCKS_EXPOSED",
    "ANUS_EXPOSED",
)
"""Labels that make a picture explicit."""

_NAME, _MODEL_FILE, _INPUT_PX = "nudenet", "320n.onnx", 320


def bundled_model_file() -> Path:
    """Return the model file inside the installed `nudenet` package, without importing it (it would load OpenCV).

    Raises:
        DataError: The package is not installed, or holds no model.
    """
    spec = util.find_spec(_NAME)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise DataError("detector nudenet: the package is not installed; run pip install 'nudenet>=3.4'")
    path = Path(folders[0]) / _MODEL_FILE
    if not path.is_file():
        raise DataError(f"detector nudenet: {path} is missing; install nudenet again")
    return path


class NudeNetDetector:
    """Detector of body parts; implements `safegen.ports.Detector`."""

    def __init__(
        self,
        model_file: Path | None = None,
        *,
        score_floor: float = 0.2,
        nms_iou: float = 0.45,
        threads: int = 1,
        batch_size: int = 8,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
    ) -> None:
        """Open the detector.

        Args:
            model_file: ONNX file; None for the one in the installed package.
            score_floor: Detections below are not returned.
            nms_iou: Boxes of one label that overlap more are one object.
            threads: Of one inference.
            batch_size: Pictures in one inference.
            providers: onnxruntime's execution providers, best first.

        Raises:
            DataError: The file or the package is missing, or the file is no ONNX model.
        """
        path = model_file or bundled_model_file()
        self._model = OnnxModel(path, threads=threads, providers=providers)
        self._score_floor, self._nms_iou, self._batch_size = score_floor, nms_iou, batch_size
        self._identity = DetectorIdentity(
            name=_NAME,
            version=_version(),
            model_sha256=sha256_file(path),
            settings={
                "score_floor": score_floor,
                "nms_iou": nms_iou,
                "nms": "per label",
                "input_px": _INPUT_PX,
                "channels": "RGB",
                "padding": "right and below, black",
                "resize": "bilinear, antialiased",
            },
        )

    @property
    def identity(self) -> DetectorIdentity:
        """As in `Detector.identity`."""
        return self._identity

    @property
    def labels(self) -> tuple[str, ...]:
        """As in `Detector.labels`."""
        return LABELS

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        """Detect body parts in each picture; see `Detector.detect`.

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
        scale = max(height, width) / _INPUT_PX
        frame = Frame((scale, scale), width, height)
        return detections_of(raw, LABELS, frame, score_floor=self._score_floor, nms_iou=self._nms_iou)


def _network_input(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    side = max(height, width)
    padded = np.zeros((side, side, 3), dtype=np.uint8)
    padded[:height, :width] = image
    resized = Image.fromarray(padded).resize((_INPUT_PX, _INPUT_PX), Image.Resampling.BILINEAR)
    return (np.asarray(resized, dtype=np.float32) / np.float32(255)).transpose(2, 0, 1)


def _version() -> str:
    try:
        return metadata.version(_NAME)
    except metadata.PackageNotFoundError:
        return "unknown"
