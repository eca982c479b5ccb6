"""A detector: finds pictures that are mostly red. As small as a detector can be, and complete."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safegen.domain.detection import Detection, DetectorIdentity


class RedDetector:
    """Scores how much redder a picture is than it is green or blue; implements `safegen.ports.Detector`."""

    labels = ("RED",)

    def __init__(self, *, score_floor: float = 0.05) -> None:
        """Begin.

        Args:
            score_floor: Detections below are not returned. Keep it low: thresholds belong to policies.
        """
        self._score_floor = score_floor

    @property
    def identity(self) -> DetectorIdentity:
        """Who judges, to the byte: reports and policies name it, and another one is refused."""
        weights = Path(__file__).read_bytes()  # a net's weights, where there is a net
        return DetectorIdentity(
            "red", "1", hashlib.sha256(weights).hexdigest(), {"score_floor": self._score_floor}
        )

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        """Return the detections of each RGB picture, (H, W, 3), with boxes in pixels."""
        return [self._look(image) for image in images]

    def _look(self, image: NDArray[np.uint8]) -> tuple[Detection, ...]:
        red, green, blue = image.reshape(-1, 3).mean(axis=0) / 255
        score = float(max(0.0, red - max(green, blue)))
        height, width = image.shape[:2]
        found = Detection("RED", score, (0.0, 0.0, float(width), float(height)))
        return (found,) if score >= self._score_floor else ()
