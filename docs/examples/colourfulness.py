"""A metric: how colourful pictures are (Hasler and Süsstrunk 2003, doi 10.1117/12.477378).

With rg = R - G and yb = (R + G)/2 - B over the pixels of one picture,
M = sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2); about 0 (grey) to 110 (extremely colourful).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from safegen.domain.statistics import Estimate, mean_interval


def colourfulness(picture: NDArray[np.uint8]) -> float:
    """Return M of one RGB picture, (H, W, 3).

    >>> colourfulness(np.full((2, 2, 3), 90, np.uint8))
    0.0
    """
    red, green, blue = picture.reshape(-1, 3).astype(np.float64).T
    rg, yb = red - green, (red + green) / 2 - blue
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def colourfulness_drop(
    base: Sequence[NDArray[np.uint8]], candidate: Sequence[NDArray[np.uint8]], confidence: float = 0.95
) -> Estimate:
    """Return candidate minus base, averaged over pictures of the same prompts and seeds, with its interval.

    Args:
        base: The base's pictures.
        candidate: The candidate's, in the same order.
        confidence: Two-sided.

    Returns:
        The difference, or NotComputable where there are too few pairs: what cannot be computed is never 0.
    """
    pairs = zip(base, candidate, strict=True)
    return mean_interval(
        np.array([colourfulness(ours) - colourfulness(theirs) for theirs, ours in pairs]), confidence
    )
