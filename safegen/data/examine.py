"""Look at one image: decode, encode canonically, hash. Done in place or in worker processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from threading import Lock
from types import TracebackType
from typing import Protocol, Self, final

import PIL

from safegen.data.decode import DecodeLimits, RefusedImageError, decode_image
from safegen.data.picture import encode_png, perceptual_hash
from safegen.domain.dataset import Reason
from safegen.domain.digests import digest_json, sha256_bytes

_EXAMINER_VERSION = 1  # raise whenever the same bytes would be decoded, encoded or hashed differently
_NOT_REMEMBERED = frozenset({Reason.UNREADABLE, Reason.BROKEN_SHARD})


@dataclass(frozen=True, slots=True)
class Accepted:
    """What is to be known about an image that is taken in; fields as in `ImageRecord`."""

    sha256: str
    source_sha256: str
    width_px: int
    height_px: int
    format: str
    phash: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Why an image is not taken in; fields as in `QuarantineRecord`."""

    source_sha256: str
    reason: Reason
    detail: str


Outcome = Accepted | Refused


def examine(data: bytes, limits: DecodeLimits) -> tuple[Outcome, bytes]:
    """Look at one image.

    Args:
        data: Untrusted bytes.
        limits: What is taken in.

    Returns:
        What it is, and the PNG to store (empty if it is refused).
    """
    source_sha256 = sha256_bytes(data) if len(data) <= limits.max_bytes else ""
    try:
        image = decode_image(data, limits)
    except RefusedImageError as refusal:
        return Refused(source_sha256, refusal.reason, refusal.detail), b""
    png = encode_png(image.pixels)
    height, width, _ = image.pixels.shape
    phash = perceptual_hash(image.pixels)
    return Accepted(sha256_bytes(png), source_sha256, width, height, image.format, phash, len(png)), png


def examiner_digest(limits: DecodeLimits) -> str:
    """Return what stands for everything but the bytes that the outcome depends on."""
    return digest_json({"version": _EXAMINER_VERSION, "pillow": PIL.__version__, "limits": asdict(limits)})


def outcome_to_text(outcome: Outcome) -> str | None:
    """Return an outcome as JSON, or None if it is not worth remembering (another try may do better)."""
    if isinstance(outcome, Refused) and outcome.reason in _NOT_REMEMBERED:
        return None
    return json.dumps(asdict(outcome))


def outcome_from_text(text: str) -> Outcome:
    """Return the outcome that `outcome_to_text` wrote."""
    value = json.loads(text)
    if "reason" in value:
        return Refused(value["source_sha256"], Reason(value["reason"]), value["detail"])
    return Accepted(**value)


class Examiner(Protocol):
    """Calls `examine`, somewhere."""

    def __call__(self, data: bytes) -> tuple[Outcome, bytes]:
        """Look at one image; from any thread."""
        ...


@final
class ExaminerPool:
    """Worker processes that call `examine`.

    A decoder that takes its process down with it costs the pool and is found out: every image that was under way
    is tried again in a process of its own, and the one that crashes again is refused.
    """

    def __init__(self, limits: DecodeLimits, workers: int) -> None:
        """Make a pool; its processes start with the first image.

        Args:
            limits: What is taken in.
            workers: Number of processes.
        """
        self._limits = limits
        self._workers = workers
        self._lock = Lock()
        self._pool = self._new_pool(workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __call__(self, data: bytes) -> tuple[Outcome, bytes]:
        """Look at one image in a worker; from any thread."""
        with self._lock:
            pool = self._pool
        try:
            return self._submit(pool, data).result()
        except BrokenProcessPool:
            self._replace(pool)
            return self._alone(data)

    def _submit(self, pool: ProcessPoolExecutor, data: bytes) -> Future[tuple[Outcome, bytes]]:
        work: Callable[[bytes, DecodeLimits], tuple[Outcome, bytes]] = examine
        return pool.submit(work, data, self._limits)

    def _alone(self, data: bytes) -> tuple[Outcome, bytes]:
        with self._new_pool(1) as pool:
            try:
                return self._submit(pool, data).result()
            except BrokenProcessPool:
                detail = "the decoder's process died"
                return Refused(sha256_bytes(data), Reason.DECODER_CRASHED, detail), b""

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is broken:
                self._pool = self._new_pool(self._workers)

    @staticmethod
    def _new_pool(workers: int) -> ProcessPoolExecutor:
        # "spawn": the caller may have threads and an accelerator open, neither of which survives a fork.
        return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
