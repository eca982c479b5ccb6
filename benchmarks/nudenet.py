"""NudeNet scoring: ours in two worker processes against `nudenet.NudeDetector.detect_batch`, on the same pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.photographs import photographs
from benchmarks.results import Comparison, record
from safegen.bootstrap import open_nudenet
from safegen.config import NudeNetSection
from safegen.detectors.worker_pool import DetectorPool

IMAGES, SIZE_PX, ROUNDS = 200, 512, 3
WORKERS = 2


def main() -> None:
    from nudenet import NudeDetector

    pictures = photographs(IMAGES, SIZE_PX)
    theirs = NudeDetector()
    pool = open_nudenet(NudeNetSection(workers=WORKERS), threads=1)
    assert isinstance(pool, DetectorPool)
    with pool as ours:
        ours.detect(pictures[:32])
        theirs.detect_batch(pictures[:8])
        seconds = [
            (_seconds(ours.detect, pictures), _seconds(theirs.detect_batch, pictures)) for _ in range(ROUNDS)
        ]
    ours_s, theirs_s = (float(np.median(column)) for column in zip(*seconds, strict=True))
    record(
        "nudenet",
        Comparison(IMAGES / ours_s, IMAGES / theirs_s, "images/s", IMAGES),
        compared=f"{IMAGES} pictures of {SIZE_PX} px as RGB arrays, one call a side: {WORKERS} worker processes of one "
        f"thread each against `NudeDetector.detect_batch` as it comes (onnxruntime's own threads). Median of "
        f"{ROUNDS} rounds in turn.",
        bar=">= 4 on two cores",
    )


def _seconds(work: Callable[[Sequence], object], pictures: Sequence) -> float:
    start = time.perf_counter()
    work(pictures)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
