"""What a detector says about an image, and which detector said it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Detection:
    """One object found in one image.

    Attributes:
        label: The detector's own label.
        score: Its confidence, 0..1, raw (no policy threshold applied).
        box: x, y, width, height in pixels of the image; x and y are the top left corner.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class DetectorIdentity:
    """Which detector, in which version, with which weights and settings.

    Two evaluations are comparable only if their detectors' identities are equal.

    Attributes:
        name: Such as "nudenet" or "miniature".
        version: The version of the detector's model or package.
        model_sha256: SHA-256 of the model file.
        settings: Everything that changes what it returns (floor, NMS, scales, input size).
    """

    name: str
    version: str
    model_sha256: str
    settings: dict[str, str | float | int | bool] = field(default_factory=dict[str, str | float | int | bool])
