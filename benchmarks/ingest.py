"""Ingest: per core against a plain PIL loop, on two workers, a second time, and its memory."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageOps

from benchmarks.photographs import write_jpegs
from benchmarks.results import Comparison, record
from safegen.adapters.folder_store import FolderStore
from safegen.data.ingest import IngestLimits, ingest
from safegen.data.sources import FolderSource
from safegen.domain.digests import sha256_bytes

SIZE_PX, IMAGES, ROUNDS = 512, 600, 3
MANY, MANY_SIZE_PX = 10_000, 256
FEW_FLAT, MANY_FLAT, FLAT_SIZE_PX = 1_000, 20_000, 64
# Parts of three photographs are near-duplicates of each other; which of them stay is not what is measured.
LIMITS = IngestLimits(max_near_bits=None)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        _per_core_and_on_two(Path(folder))
        _again(Path(folder))
        _memory(Path(folder))


def plain_loop(pictures: Path, store: Path) -> None:
    """Decode, turn upright, hash the file, the stored PNG and its look, and write it: what ingest does to a picture."""
    store.mkdir()
    for path in sorted(pictures.iterdir()):
        data = path.read_bytes()
        sha256_bytes(data)
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image.convert("RGB"))
        buffer = io.BytesIO()
        upright.save(buffer, "PNG", compress_level=3)
        imagehash.phash(upright)
        (store / sha256_bytes(buffer.getvalue())).write_bytes(buffer.getvalue())


def take_in(pictures: Path, store: Path, workers: int = 1) -> None:
    ingest(
        [FolderSource(pictures, "benign")], FolderStore(store), name="bench", limits=LIMITS, workers=workers
    )


def _per_core_and_on_two(folder: Path) -> None:
    pictures = folder / "pictures"
    write_jpegs(pictures, IMAGES, SIZE_PX)
    sides = {"plain": plain_loop, "one": take_in, "two": partial(take_in, workers=2)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(ROUNDS):
        for name, side in sides.items():
            start = time.perf_counter()
            side(pictures, folder / f"{name}-{turn}")
            seconds[name].append(time.perf_counter() - start)
    plain, one, two = (IMAGES / float(np.median(taken)) for taken in seconds.values())
    what = f"{IMAGES} JPEGs of {SIZE_PX} px into a folder store. Median of {ROUNDS} rounds in turn."
    record(
        "ingest_core",
        Comparison(one, plain, "images/s", IMAGES),
        compared=f"One process, against a plain loop that decodes with PIL, hashes file, PNG and look, and writes the "
        f"same PNG, with no limits, checks, duplicates, manifest or durable writes: {what}",
        bar=">= 0.9",
    )
    record(
        "ingest_two",
        Comparison(two, one, "images/s", IMAGES),
        compared=f"Two workers against one, start of the worker processes included: {what}",
        bar=">= 1.7",
    )


def _again(folder: Path) -> None:
    pictures = folder / "many"
    write_jpegs(pictures, MANY, MANY_SIZE_PX)
    seconds: list[float] = []
    for _ in range(2):
        start = time.perf_counter()
        take_in(pictures, folder / "many-store")
        seconds.append(time.perf_counter() - start)
    record(
        "ingest_again",
        Comparison(seconds[1], seconds[0], "s", MANY),
        compared=f"A second run over {MANY} unchanged JPEGs of {MANY_SIZE_PX} px against the first.",
        bar="< 0.02",
    )


def _memory(folder: Path) -> None:
    peaks: list[float] = []
    for count in (FEW_FLAT, MANY_FLAT):
        pictures = folder / f"flat-{count}"
        write_jpegs(pictures, count, FLAT_SIZE_PX)
        command = [sys.executable, "-m", "benchmarks.ingest", str(pictures), str(folder / f"store-{count}")]
        peaks.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    record(
        "ingest_memory",
        Comparison(peaks[1], peaks[0], "MiB", MANY_FLAT),
        compared=f"Peak memory of a process that ingests {MANY_FLAT} pictures against one that ingests {FEW_FLAT}.",
        bar="flat: what grows is a record a picture",
    )


def _peak_of_one_run(pictures: str, store: str) -> None:
    take_in(Path(pictures), Path(store))
    # Not getrusage: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text()
    [peak_kib] = re.findall(r"VmHWM:\s+(\d+) kB", status)
    print(int(peak_kib) / 1024)


if __name__ == "__main__":
    if sys.argv[1:]:
        _peak_of_one_run(*sys.argv[1:])
    else:
        main()
