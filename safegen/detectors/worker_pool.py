"""A detector in several processes; what it finds is what one process finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Self, final

import numpy as np
from numpy.typing import NDArray

from safegen.domain.detection import Detection, DetectorIdentity
from safegen.errors import ConfigError, EvaluationError
from safegen.ports import Detector

_PART = 8  # pictures in one message: few enough to keep all workers busy to the end

_own_detector: list[Detector] = []  # in a worker process: its one detector


@final
class DetectorPool:
    """Worker processes that each hold a detector of their own; implements `safegen.ports.Detector`.

    A picture's detections do not depend on which process looked, nor on which pictures it looked at before. Workers
    start with the first picture and end with `close`, the `with` block, or the interpreter.
    """

    def __init__(self, opener: Callable[[], Detector], workers: int) -> None:
        """Make a pool.

        Args:
            opener: Opens the detector; called here once, for what it says of itself, and once in every worker, so it
                must be picklable: a function of a module, or a `functools.partial` of one.
            workers: Number of processes.

        Raises:
            ConfigError: Fewer than one worker.
        """
        if workers < 1:
            raise ConfigError(f"cannot detect in {workers} processes; expected at least 1")
        here = opener()
        self._identity, self._labels = here.identity, here.labels
        # "spawn": the caller may have threads and an accelerator open, neither of which survives a fork.
        self._pool = ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_open, initargs=(opener,)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def identity(self) -> DetectorIdentity:
        """As in `Detector.identity`: that of the detector, since the pool changes nothing."""
        return self._identity

    @property
    def labels(self) -> tuple[str, ...]:
        """As in `Detector.labels`."""
        return self._labels

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        """Detect in each picture; see `Detector.detect`.

        Raises:
            EvaluationError: The detector failed, or a worker died.
        """
        parts = [list(images[start : start + _PART]) for start in range(0, len(images), _PART)]
        try:
            return [found for answers in self._pool.map(_detect, parts) for found in answers]
        except BrokenProcessPool as error:
            raise EvaluationError(
                f"detector {self._identity.name}: a worker process died; its memory may not suffice, use fewer workers"
            ) from error

    def close(self) -> None:
        """End the workers."""
        self._pool.shutdown(cancel_futures=True)


def _open(opener: Callable[[], Detector]) -> None:
    _own_detector[:] = [opener()]


def _detect(images: list[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
    return _own_detector[0].detect(images)
