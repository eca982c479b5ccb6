"""Scales of charts: from values to places in a drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Place of `low`; larger than `end` on an axis that points up.
        end: Place of `high`.
    """

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the place of a value; one beyond an end is put on that end.

        >>> Axis(0, 1, 100, 0).at(0.25), Axis(0, 1, 100, 0).at(7)
        (75.0, 0.0)
        """
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def holds(self, value: float) -> bool:
        """Say whether a value lies on the axis."""
        return self.low <= value <= self.high

    @property
    def ticks(self) -> list[float]:
        """Round values on the axis: steps of 1, 2 or 5 times a power of ten, at most six.

        >>> Axis(0, 1, 0, 100).ticks
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        """
        step = round_step(self.high - self.low)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 10) for number in range(first, last + 1)]


def round_step(span: float, most: int = 5) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that divides a span into at most `most` steps.

    >>> round_step(1.0), round_step(0.31), round_step(3)
    (0.2, 0.1, 1.0)
    """
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough) + 1e-9)
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


def fitting_axis(values: list[float], *, start: float, end: float, least_span: float) -> Axis:
    """Return an axis that holds all values, with round ends.

    Args:
        values: What must lie on it; none gives an axis about 0.
        start: Place of its low end.
        end: Place of its high end.
        least_span: How much it covers at least.
    """
    low, high = min(values, default=0.0), max(values, default=0.0)
    if high - low < least_span:
        middle = (low + high) / 2
        low, high = middle - least_span / 2, middle + least_span / 2
    step = round_step(high - low)
    return Axis(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, start, end)
