"""The running average of trained weights, which becomes the result of an edit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class WeightAverage:
    """Exponential moving average of weights, warmed up so that the first steps are soon forgotten.

    After step s (from 0) it moves by 1 - min(decay, (1 + s) / (10 + s)) towards the weights.
    """

    def __init__(self, weights: Mapping[str, torch.nn.Parameter], decay: float) -> None:
        """Begin with the weights as they are.

        Args:
            weights: Trained weights by name; kept by reference.
            decay: Largest decay; 0 follows the weights exactly.
        """
        self._weights, self._decay = weights, decay
        self.values = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, weight in self._weights.items():
            self.values[name].lerp_(weight, 1 - decay)

    @torch.no_grad()
    def copy_to_weights(self) -> None:
        """Leave the averaged values in the weights."""
        for name, weight in self._weights.items():
            weight.copy_(self.values[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averaged weights for a while."""
        kept = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self.copy_to_weights()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self._weights.items():
                    weight.copy_(kept[name])
