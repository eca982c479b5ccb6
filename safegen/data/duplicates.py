"""Exact and perceptual duplicates: which of several like images stays.

The outcome is a function of the set of images alone: neither the order in which they were read nor the number of
workers matters.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from safegen.domain.dataset import ROLES, ImageRecord, QuarantineRecord, Reason
from safegen.errors import ConfigError

HASH_BITS = 64
MAX_NEAR_BITS = 16


class NearIndex:
    """Finds a hash within some Hamming distance of a given one, without comparing with all.

    If two 64-bit hashes differ in at most k bits, then of k+1 bands that the bits are cut into, at least one is
    the same in both. So only hashes that share a band are compared (Manku et al., WWW 2007, section 3).
    """

    def __init__(self, max_bits: int) -> None:
        """Make an empty index.

        Args:
            max_bits: The largest distance that counts as near, 0..16.

        Raises:
            ConfigError: It is out of this range.
        """
        if not 0 <= max_bits <= MAX_NEAR_BITS:
            raise ConfigError(
                f"near-duplicate distance {max_bits} is out of range; expected 0..{MAX_NEAR_BITS} bits"
            )
        self._max_bits = max_bits
        edges = [round(band * HASH_BITS / (max_bits + 1)) for band in range(max_bits + 2)]
        self._bands = [(low, (1 << high - low) - 1) for low, high in pairwise(edges)]
        self._hashes: list[dict[int, array[int]]] = [{} for _ in self._bands]
        self._owners: list[dict[int, list[str]]] = [{} for _ in self._bands]

    def add(self, value: int, owner: str) -> None:
        """Add a hash and what it belongs to."""
        for (shift, mask), hashes, owners in zip(self._bands, self._hashes, self._owners, strict=True):
            band = value >> shift & mask
            hashes.setdefault(band, array("Q")).append(value)
            owners.setdefault(band, []).append(owner)

    def find(self, value: int) -> tuple[str, int] | None:
        """Return the owner of the nearest hash added (the smallest owner of several) and its distance, or None."""
        best: tuple[int, str] | None = None
        for (shift, mask), hashes, owners in zip(self._bands, self._hashes, self._owners, strict=True):
            band = value >> shift & mask
            bucket = hashes.get(band)
            if bucket is None:
                continue
            nearest, places = _nearest(bucket, value)
            if nearest <= self._max_bits:
                best = min(filter(None, (best, (nearest, min(owners[band][place] for place in places)))))
        return None if best is None else (best[1], best[0])


def _nearest(bucket: array[int], value: int) -> tuple[int, list[int]]:
    """Return the smallest distance in a bucket and where it occurs; small buckets are quicker without numpy."""
    if len(bucket) <= 24:
        bits = [(other ^ value).bit_count() for other in bucket]
        nearest = min(bits)
        return nearest, [place for place, count in enumerate(bits) if count == nearest]
    counts = np.bitwise_count(np.frombuffer(bucket, dtype=np.uint64) ^ np.uint64(value))
    nearest = int(counts.min())
    return nearest, np.flatnonzero(counts == nearest).tolist()


def resolve_duplicates(
    records: Iterable[ImageRecord], *, kept_before: frozenset[str], max_near_bits: int | None
) -> tuple[list[ImageRecord], list[QuarantineRecord]]:
    """Keep one of all images that are alike.

    Of equal pictures an unsafe one stays (an image offered in both roles
    is not benign), else one with a caption, else the first by source. Of near ones (within a role), one of the
    previous version stays, else the one with most pixels, else the first by digest.

    Args:
        records: What was taken in, in any order.
        kept_before: Digests of the previous version.
        max_near_bits: The Hamming distance of perceptual hashes that counts as alike; None looks for equal ones only.

    Returns:
        What stays, and what goes into quarantine.
    """
    unique, refused = _resolve_exact(records)
    if max_near_bits is None:
        return unique, refused
    kept: list[ImageRecord] = []
    for role in ROLES:
        same_role = [record for record in unique if record.role == role]
        kept_in_role, near = _resolve_near(same_role, kept_before, max_near_bits)
        kept += kept_in_role
        refused += near
    return kept, refused


def _resolve_exact(records: Iterable[ImageRecord]) -> tuple[list[ImageRecord], list[QuarantineRecord]]:
    groups: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        groups[record.sha256].append(record)
    kept: list[ImageRecord] = []
    refused: list[QuarantineRecord] = []
    for group in groups.values():
        first, *others = sorted(group, key=_exact_order)
        kept.append(first)
        for other in others:
            conflict = other.role != first.role
            reason = Reason.IN_BOTH_ROLES if conflict else Reason.EXACT_DUPLICATE
            refused.append(_refuse(other, reason, f"the same picture as {first.sha256} ({first.role})"))
    return kept, refused


def _exact_order(record: ImageRecord) -> tuple[int, bool, str, str]:
    return ROLES.index(record.role), not record.caption, record.source, record.source_sha256


def _resolve_near(
    records: Sequence[ImageRecord], kept_before: frozenset[str], max_bits: int
) -> tuple[list[ImageRecord], list[QuarantineRecord]]:
    index = NearIndex(max_bits)
    kept: list[ImageRecord] = []
    refused: list[QuarantineRecord] = []
    order = sorted(records, key=lambda record: _near_order(record, kept_before))
    for record in order:
        value = int(record.phash, 16)
        found = index.find(value)
        if found is None:
            index.add(value, record.sha256)
            kept.append(record)
        else:
            refused.append(_refuse(record, Reason.NEAR_DUPLICATE, f"{found[1]} of 64 bits from {found[0]}"))
    return kept, refused


def _near_order(record: ImageRecord, kept_before: frozenset[str]) -> tuple[bool, int, str]:
    return record.sha256 not in kept_before, -record.width_px * record.height_px, record.sha256


def _refuse(record: ImageRecord, reason: Reason, detail: str) -> QuarantineRecord:
    return QuarantineRecord(record.source, record.source_sha256, record.role, reason, detail)
