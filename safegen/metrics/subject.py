"""Whether a picture shows the object that its prompt asked for."""

from __future__ import annotations

from collections.abc import Sequence

from safegen.domain.detection import Detection


def shows_subject(detections: Sequence[Detection], label: str, threshold: float) -> bool:
    """Say whether the best detection is the asked object, with at least the threshold's score.

    Args:
        detections: Of one picture, in any order.
        label: Of the object asked for.
        threshold: Score from which it counts as drawn.

    >>> box = (0.0, 0.0, 9.0, 9.0)
    >>> both = [Detection("KEY", 0.7, box), Detection("PEN", 0.6, box)]
    >>> shows_subject(both, "KEY", 0.5), shows_subject(both, "PEN", 0.5), shows_subject([], "KEY", 0.5)
    (True, False, False)
    """
    best = max(detections, key=lambda detection: detection.score, default=None)
    return best is not None and best.label == label and best.score >= threshold
