"""Ingest: images from any sources become content-addressed pictures and a manifest.

What is refused goes into quarantine with a reason. A second run looks only at what its index does not know yet;
the manifest is then made anew from what is known, so that it depends on the images alone.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from safegen.data.decode import DecodeLimits, RefusedImageError
from safegen.data.duplicates import MAX_NEAR_BITS, resolve_duplicates
from safegen.data.examine import (
    Accepted,
    Examiner,
    ExaminerPool,
    Outcome,
    Refused,
    examine,
    examiner_digest,
    outcome_from_text,
    outcome_to_text,
)
from safegen.data.journal import Journal
from safegen.data.manifest import check_name, manifest_key, quarantine_key, read_images, write_images
from safegen.data.picture import blob_key, put_png
from safegen.data.sources.source import Source, SourceItem
from safegen.domain.dataset import (
    DatasetVersion,
    ImageRecord,
    QuarantineRecord,
    Role,
    image_dataset,
    split_of,
)
from safegen.domain.digests import sha256_bytes
from safegen.errors import ConfigError, DataError
from safegen.ports import ObjectStore

_log = logging.getLogger(__name__)


class Progress(Protocol):
    """Told how far a piece of work has come."""

    def __call__(self, done: int, total: int | None) -> None:
        """Take note.

        Args:
            done: Units of work done.
            total: Of how many; None if that is not known yet.
        """
        ...


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """What is taken in, and what counts as alike.

    Attributes:
        decode: Limits on single images.
        max_near_bits: Hamming distance of perceptual hashes (64 bits) up to which two images of one role are
            duplicates; None looks for equal pictures only.
        held_out_rate: Share of images that is never trained on, 0..1.
    """

    decode: DecodeLimits = field(default_factory=DecodeLimits)
    max_near_bits: int | None = 4
    held_out_rate: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.held_out_rate <= 1:
            raise ConfigError(f"held_out_rate is {self.held_out_rate}; expected 0..1")
        if self.max_near_bits is not None and not 0 <= self.max_near_bits <= MAX_NEAR_BITS:
            raise ConfigError(f"max_near_bits is {self.max_near_bits}; expected 0..{MAX_NEAR_BITS} or None")


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What an ingestion led to.

    Attributes:
        dataset: The version: name, digest, counts by role and split.
        manifest_uri: Where its manifest is.
        quarantine_uri: Where the list of what was refused is.
        quarantined: Number of images refused, by reason.
        offered: Number of images that the sources held.
        examined: How many of these had to be looked at.
        reused: How many were known from an earlier run.
    """

    dataset: DatasetVersion
    manifest_uri: str
    quarantine_uri: str
    quarantined: Mapping[str, int]
    offered: int
    examined: int
    reused: int


@dataclass(frozen=True, slots=True)
class _Seen:
    role: Role
    source: str
    caption: str
    outcome: Outcome


def ingest(
    sources: Sequence[Source],
    store: ObjectStore,
    *,
    name: str,
    limits: IngestLimits | None = None,
    previous: DatasetVersion | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> IngestResult:
    """Take in what the sources hold.

    Args:
        sources: Where the images are; two of them must not share a label.
        store: Where pictures, manifest, quarantine and index go.
        name: Name of the dataset.
        limits: What is taken in; None for the defaults.
        previous: A version of the same dataset to add to; None makes a version of the sources alone.
        workers: Number of processes that decode; 1 decodes in this one.
        progress: Told of every image.

    Returns:
        The version and how it came about.

    Raises:
        DataError: A source as a whole is missing or wrong, or not one image could be taken in.
        StorageError: The store failed.
    """
    limits = limits or IngestLimits()
    check_name(name)
    _check_labels(sources)
    before = read_images(store, previous.name, previous.digest) if previous else []
    index = _Index(store, name, limits.decode)
    seen = list(_watched(_look(sources, store, index, limits.decode, workers), progress))
    kept, refused = _settle(seen, before, limits)
    if lost := _lost_pictures(store, name, kept, before, index):
        index.distrust(lost)
        seen = list(_watched(_look(sources, store, index, limits.decode, workers), progress))
        kept, refused = _settle(seen, before, limits)
    if not kept:
        raise DataError(
            f"no image could be taken in for dataset {name!r}: {_counts(refused) or 'there was none'}"
        )
    version = write_images(store, name, kept, refused)
    _log.info("dataset %s %s: %s, quarantined %s", name, version.digest, version.counts, _counts(refused))
    return IngestResult(
        dataset=version,
        manifest_uri=f"{store.uri}/{manifest_key(name, version.digest)}",
        quarantine_uri=f"{store.uri}/{quarantine_key(name, version.digest)}",
        quarantined=_counts(refused),
        offered=len(seen),
        examined=index.examined,
        reused=len(seen) - index.examined,
    )


class _Index:
    """Which images are known, by source, name and fingerprint."""

    def __init__(self, store: ObjectStore, name: str, limits: DecodeLimits) -> None:
        self._journal = Journal(store, f"datasets/{name}/index/")
        self._examiner = examiner_digest(limits)
        self._distrusted: frozenset[str] = frozenset()
        self.new: set[str] = set()
        self.examined = 0

    def find(self, key: str) -> Outcome | None:
        text = self._journal.get(key)
        outcome = outcome_from_text(text) if text is not None else None
        return None if isinstance(outcome, Accepted) and outcome.sha256 in self._distrusted else outcome

    def remember(self, key: str, outcome: Outcome) -> None:
        self.examined += 1
        if isinstance(outcome, Accepted):
            self.new.add(outcome.sha256)
        if (text := outcome_to_text(outcome)) is not None:
            self._journal.put(key, text)

    def distrust(self, pictures: frozenset[str]) -> None:
        """Look again at the images of these digests."""
        self._distrusted = pictures

    def flush(self) -> None:
        self._journal.flush()

    def key(self, source: Source, item: SourceItem) -> str:
        parts = f"{self._examiner}\n{source.label}\n{source.role}\n{item.name}\n{item.fingerprint}"
        return sha256_bytes(parts.encode(errors="surrogatepass"))


def _lost_pictures(
    store: ObjectStore, name: str, kept: Sequence[ImageRecord], before: Sequence[ImageRecord], index: _Index
) -> frozenset[str]:
    """Return what the index knows but the store lost: a picture that no manifest names may be cleaned away."""
    version = image_dataset(name, kept)
    if store.head(manifest_key(name, version.digest)) is not None:
        return frozenset()
    doubtful = {record.sha256 for record in kept} - index.new - {record.sha256 for record in before}
    return frozenset(sha256 for sha256 in doubtful if store.head(blob_key(sha256)) is None)


def _look(
    sources: Sequence[Source], store: ObjectStore, index: _Index, limits: DecodeLimits, workers: int
) -> Iterator[_Seen]:
    """Yield every image on offer, in the order of the sources."""
    with _taking_in(store, limits, workers) as start:
        under_way: deque[tuple[Source, SourceItem, str, Outcome | Future[Outcome]]] = deque()
        for source, item in _offers(sources, limits):
            key = index.key(source, item)
            under_way.append((source, item, key, index.find(key) or start(item)))
            if len(under_way) >= 2 * workers + 2:
                yield _finish(under_way.popleft(), index)
        while under_way:
            yield _finish(under_way.popleft(), index)
    index.flush()


@contextmanager
def _taking_in(
    store: ObjectStore, limits: DecodeLimits, workers: int
) -> Iterator[Callable[[SourceItem], Future[Outcome]]]:
    """Give the function that takes in one image; in any case the store is waited for in other threads."""
    if workers <= 1:
        with ThreadPoolExecutor(2) as threads:
            yield partial(_start_here, limits=limits, store=store, threads=threads)
        return
    with ExaminerPool(limits, workers) as pool, ThreadPoolExecutor(2 * workers) as threads:
        yield partial(_start, pool=pool, store=store, threads=threads)


def _start_here(
    item: SourceItem, limits: DecodeLimits, store: ObjectStore, threads: ThreadPoolExecutor
) -> Future[Outcome]:
    """Read and examine now; store in a thread."""
    try:
        outcome, png = examine(item.read(), limits)
    except RefusedImageError as refusal:
        outcome, png = _not_read(refusal), b""
    return threads.submit(_stored, outcome, png, store)


def _start(
    item: SourceItem, pool: Examiner, store: ObjectStore, threads: ThreadPoolExecutor
) -> Future[Outcome]:
    """Read, examine and store in a thread; what must be read in order is read here."""
    read = item.read if item.concurrent else _read_now(item)
    return threads.submit(_take_in, read, pool, store)


def _read_now(item: SourceItem) -> Callable[[], bytes]:
    try:
        data = item.read()
    except RefusedImageError as refusal:
        return partial(_raise, refusal)
    return lambda: data


def _raise(error: RefusedImageError) -> bytes:
    raise error


def _finish(work: tuple[Source, SourceItem, str, Outcome | Future[Outcome]], index: _Index) -> _Seen:
    source, item, key, outcome = work
    if isinstance(outcome, Future):
        outcome = outcome.result()
        index.remember(key, outcome)
    return _seen(source, item, outcome)


def _take_in(read: Callable[[], bytes], examiner: Examiner, store: ObjectStore) -> Outcome:
    try:
        data = read()
    except RefusedImageError as refusal:
        return _not_read(refusal)
    return _stored(*examiner(data), store)


def _not_read(refusal: RefusedImageError) -> Refused:
    return Refused("", refusal.reason, refusal.detail)


def _stored(outcome: Outcome, png: bytes, store: ObjectStore) -> Outcome:
    if isinstance(outcome, Accepted):
        put_png(store, png, outcome.sha256)
    return outcome


def _offers(sources: Sequence[Source], limits: DecodeLimits) -> Iterator[tuple[Source, SourceItem]]:
    for source in sources:
        for item in source.items(limits.max_bytes):
            yield source, item


def _seen(source: Source, item: SourceItem, outcome: Outcome) -> _Seen:
    return _Seen(source.role, f"{source.label}/{item.name}", item.caption, outcome)


def _watched(seen: Iterable[_Seen], progress: Progress | None) -> Iterator[_Seen]:
    for done, one in enumerate(seen, start=1):
        if progress is not None:
            progress(done, None)
        yield one


def _settle(
    seen: Sequence[_Seen], before: Sequence[ImageRecord], limits: IngestLimits
) -> tuple[list[ImageRecord], list[QuarantineRecord]]:
    """Make records of what was seen and decide between duplicates."""
    known = {record.source: record for record in before}
    refused: list[QuarantineRecord] = []
    for one in seen:
        if isinstance(one.outcome, Accepted):
            known[one.source] = _record(one, one.outcome, limits.held_out_rate)
        else:
            refused.append(_quarantine(one, one.outcome))
    kept_before = frozenset(record.sha256 for record in before)
    kept, alike = resolve_duplicates(
        known.values(), kept_before=kept_before, max_near_bits=limits.max_near_bits
    )
    return kept, refused + alike


def _record(seen: _Seen, accepted: Accepted, held_out_rate: float) -> ImageRecord:
    return ImageRecord(
        sha256=accepted.sha256,
        source_sha256=accepted.source_sha256,
        role=seen.role,
        source=seen.source,
        caption=seen.caption,
        width_px=accepted.width_px,
        height_px=accepted.height_px,
        format=accepted.format,
        phash=accepted.phash,
        split=split_of(accepted.sha256, held_out_rate),
        size_bytes=accepted.size_bytes,
    )


def _quarantine(seen: _Seen, refused: Refused) -> QuarantineRecord:
    return QuarantineRecord(seen.source, refused.source_sha256, seen.role, refused.reason, refused.detail)


def _counts(refused: Iterable[QuarantineRecord]) -> dict[str, int]:
    return dict(sorted(Counter(str(record.reason) for record in refused).items()))


def _check_labels(sources: Sequence[Source]) -> None:
    labels = Counter(source.label for source in sources)
    if shared := sorted(label for label, count in labels.items() if count > 1):
        raise ConfigError(f"several sources are labelled {shared}; give each a label of its own")
    if not sources:
        raise ConfigError("there is no source to ingest from; give at least one")
