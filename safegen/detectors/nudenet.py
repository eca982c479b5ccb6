"""NudeNet (https://github.com/notAI-tech/NudeNet), run directly on the model file that its wheel carries.

What differs from `nudenet.NudeDetector`, each on purpose:
    channels   always RGB. Upstream feeds BGR when it is given a path or bytes (its issue 203), and scores fall.
    NMS        per label. Upstream's lets a COVERED box hide an EXPOSED one.
    floor      0.2 as its code says; upstream's NMSBoxes call raises it to 0.25.
    resize     bilinear with antialiasing. Upstream's skips pixels when it reduces.
Padding is upstream's: to a square, black, to the right and below. `compat = "3.4.2"` takes all of upstream's
conventions instead, see `safegen.detectors.nudenet_conventions`.

The wheel's metadata says MIT, the LICENSE file inside says AGPL-3.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from safegen.detectors.nudenet_conventions import Conventions, OwnConventions, UpstreamConventions
from safegen.detectors.onnx_session import OnnxModel
from safegen.detectors.yolo_output import Frame
from safegen.domain.detection import Detection, DetectorIdentity
from safegen.domain.digests import sha256_file
from safegen.errors import ConfigError, DataError

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

_NAME, _MODEL_FILE = "nudenet", "320n.onnx"
_INPUT_PX, _STRIDE_PX = 320, 32
_OWN_FLOOR, _OWN_NMS_IOU = 0.2, 0.45


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
        compat: Literal["3.4.2"] | None = None,
        channels: Literal["RGB", "BGR"] | None = None,
        scales: tuple[float, ...] = (1.0,),
        flip: bool = False,
        score_floor: float | None = None,
        nms_iou: float | None = None,
        threads: int = 1,
        batch_size: int = 1,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
    ) -> None:
        """Open the detector.

        Args:
            model_file: ONNX file; None for the one in the installed package.
            compat: Version of nudenet whose conventions are taken; None for ours.
            channels: In which order the net is given them; None for RGB, and under `compat` for BGR, as upstream
                does with files. With RGB, `compat` is upstream given arrays that are RGB already.
            scales: Sizes at which the net looks, as multiples of 320 px; what it finds at each is put together.
            flip: Whether it looks at the mirrored picture too.
            score_floor: Detections below are not returned; None for 0.2. `compat` has its own.
            nms_iou: Boxes of one label that overlap more are one object; None for 0.45. `compat` has its own.
            threads: Of one inference.
            batch_size: Pictures in one inference: 1 is fastest on a CPU, a GPU wants more.
            providers: onnxruntime's execution providers, best first.

        Raises:
            DataError: The file or the package is missing, or the file is no ONNX model.
            ConfigError: A provider is not installed, or a setting makes no sense.
        """
        path = model_file or bundled_model_file()
        self._input_sizes_px = _input_sizes_px(scales)
        self._conventions = _conventions(compat, channels, score_floor, nms_iou)
        self._model = OnnxModel(path, threads=threads, providers=providers)
        self._flip, self._batch_size = flip, batch_size
        self._identity = DetectorIdentity(
            name=_NAME,
            version=_version(),
            model_sha256=sha256_file(path),
            settings={
                "compat": compat or "none",
                "input_px": ", ".join(str(size) for size in self._input_sizes_px),
                "flip": flip,
                **self._conventions.settings,
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
            outputs = np.concatenate(self._views(part), axis=2)  # (b, 22, cells of all views)
            found += [self._detections(output, image) for output, image in zip(outputs, part, strict=True)]
        return found

    def _views(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Run the net at every size, plain and mirrored; boxes come back in pixels of the 320 px input."""
        outputs: list[NDArray[np.float32]] = []
        for size_px in self._input_sizes_px:
            batch = np.empty((len(images), 3, size_px, size_px), dtype=np.float32)
            for place, image in zip(batch, images, strict=True):
                self._conventions.fill_input(place, image)
            outputs.append(self._run(batch))
            if self._flip:
                mirrored = self._run(np.ascontiguousarray(batch[..., ::-1]))
                mirrored[:, 0] = _INPUT_PX - mirrored[:, 0]
                outputs.append(mirrored)
        return outputs

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        raw = self._model.run(batch)
        raw[:, :4] *= np.float32(_INPUT_PX / batch.shape[-1])
        return raw

    def _detections(self, raw: NDArray[np.float32], image: NDArray[np.uint8]) -> tuple[Detection, ...]:
        height, width = image.shape[:2]
        scale = max(height, width) / _INPUT_PX
        return self._conventions.detections(raw, LABELS, Frame((scale, scale), width, height))


def _input_sizes_px(scales: tuple[float, ...]) -> tuple[int, ...]:
    sizes = tuple(dict.fromkeys(round(_INPUT_PX * scale / _STRIDE_PX) * _STRIDE_PX for scale in scales))
    if not sizes or min(sizes) < _STRIDE_PX:
        raise ConfigError(f"detector nudenet: scales are {scales}; expected at least one, each 0.1 or more")
    return sizes


def _conventions(
    compat: Literal["3.4.2"] | None,
    channels: Literal["RGB", "BGR"] | None,
    score_floor: float | None,
    nms_iou: float | None,
) -> Conventions:
    if compat is None:
        floor = _OWN_FLOOR if score_floor is None else score_floor
        return OwnConventions(channels or "RGB", floor, _OWN_NMS_IOU if nms_iou is None else nms_iou)
    if score_floor is not None or nms_iou is not None:
        raise ConfigError(
            f"detector nudenet: score_floor {score_floor} and nms_iou {nms_iou} do not go with compat {compat!r}, "
            "which fixes both; leave them out"
        )
    return UpstreamConventions(channels or "BGR")


def _version() -> str:
    try:
        return metadata.version(_NAME)
    except metadata.PackageNotFoundError:
        return "unknown"
