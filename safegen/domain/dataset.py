"""Images, refusals and dataset versions: what a manifest says, row by row.

A dataset version *is* the digest of its manifest's rows. The digest is taken over the rows' values in canonical
JSON (RFC 8785), so that it does not depend on the Parquet writer, its version or its compression.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Literal

from safegen.errors import DataError

Role = Literal["unsafe", "benign"]
Split = Literal["train", "held_out"]
ROLES: tuple[Role, ...] = ("unsafe", "benign")
SPLITS: tuple[Split, ...] = ("train", "held_out")


class Reason(StrEnum):
    """Why an image was put into quarantine."""

    EMPTY = "empty"
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    NOT_AN_IMAGE = "not_an_image"
    FORMAT_NOT_ALLOWED = "format_not_allowed"
    ANIMATED = "animated"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    DECODER_CRASHED = "decoder_crashed"
    SYMLINK = "symlink"
    OUTSIDE_SOURCE = "outside_source"
    NOT_A_FILE = "not_a_file"
    UNREADABLE = "unreadable"
    BROKEN_SHARD = "broken_shard"
    NO_BYTES = "no_bytes"
    EXACT_DUPLICATE = "exact_duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    IN_BOTH_ROLES = "in_both_roles"
    CONCEPT_NOT_SHOWN = "concept_not_shown"
    CONCEPT_SHOWN = "concept_shown"
    CENSOR_FAILED = "censor_failed"


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a dataset.

    Attributes:
        sha256: Digest of the stored PNG, which is also its key in the object store.
        source_sha256: Digest of the bytes as they were delivered.
        role: "unsafe" (shows the restricted concept) or "benign".
        source: Where it came from: the source's label and the percent-encoded name within it.
        caption: May be empty.
        width_px: After EXIF orientation.
        height_px: After EXIF orientation.
        format: As delivered: "PNG", "JPEG" or "WEBP".
        phash: 64-bit perceptual hash, 16 hex digits.
        split: "train" or "held_out", a function of the digest alone.
        size_bytes: Of the stored PNG.
    """

    sha256: str
    source_sha256: str
    role: Role
    source: str
    caption: str
    width_px: int
    height_px: int
    format: str
    phash: str
    split: Split
    size_bytes: int


@dataclass(frozen=True, slots=True)
class QuarantineRecord:
    """One image that was refused, and why.

    Attributes:
        source: As in `ImageRecord`.
        source_sha256: Digest of the bytes as they were delivered; empty if they were not read in full.
        role: The role it was offered for.
        reason: Why.
        detail: One line for a human: the value found and the limit, or the image it duplicates.
    """

    source: str
    source_sha256: str
    role: Role
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class TripletRecord:
    """One training triplet: three pictures of the same size, by the digest of their stored PNG.

    Attributes:
        unsafe_sha: The unsafe picture at the model's size.
        censored_sha: The same picture with every region of the concept averaged into blocks.
        benign_sha: Its benign partner at the model's size.
        unsafe_origin_sha: The dataset's image that `unsafe_sha` was resized from (the same if it fitted).
        benign_origin_sha: Likewise for `benign_sha`.
        unsafe_caption: May be empty.
        benign_caption: May be empty.
        boxes: JSON list of [x, y, width, height] in pixels: the regions that were averaged.
        rounds: How often it was coarsened or grown until the detector found nothing.
        block_px: Side of a block in the last round.
        lookalike: Whether the benign partner was drawn from the look-alikes.
    """

    unsafe_sha: str
    censored_sha: str
    benign_sha: str
    unsafe_origin_sha: str
    benign_origin_sha: str
    unsafe_caption: str
    benign_caption: str
    boxes: str
    rounds: int
    block_px: int
    lookalike: bool


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """The identity of a manifest.

    Attributes:
        name: The dataset's name.
        digest: `rows_digest` of the manifest.
        counts: Number of images by "<role>/<split>"; number of rows by "triplets" for triplets.
    """

    name: str
    digest: str
    counts: Mapping[str, int]


def split_of(sha256: str, held_out_rate: float) -> Split:
    """Return the split of an image: the same on every machine, in every run, whatever else is in the dataset.

    Args:
        sha256: Digest of the stored PNG.
        held_out_rate: Expected share of held-out images, 0..1.

    >>> split_of("a" * 64, 0.0), split_of("a" * 64, 1.0)
    ('train', 'held_out')
    """
    draw = int.from_bytes(hashlib.sha256(b"split:" + sha256.encode()).digest()[:8], "big") / 2**64
    return "held_out" if draw < held_out_rate else "train"


def row_of(record: ImageRecord | QuarantineRecord | TripletRecord) -> dict[str, str | int]:
    """Return a record as a plain row: column name to value, in the order of the fields."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def sorted_records(records: Iterable[ImageRecord]) -> list[ImageRecord]:
    """Return `records` in the order of the manifest: by role, then digest."""
    return sorted(records, key=lambda record: (record.role, record.sha256))


def rows_digest(records: Iterable[ImageRecord] | Iterable[TripletRecord]) -> str:
    """Return the SHA-256 of the canonical JSON list of the records' rows, in the order given.

    Equal to `digest_json` of the list of rows, but takes one row at a time.

    Raises:
        DataError: A text has no UTF-8 form.
    """
    digest = hashlib.sha256(b"[")
    separator = b""
    for record in records:
        row = json.dumps(row_of(record), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        try:
            digest.update(separator + row.encode())
        except UnicodeEncodeError as error:
            raise DataError(
                f"cannot digest a manifest row: {error.reason}; expected text with a UTF-8 form"
            ) from error
        separator = b","
    digest.update(b"]")
    return digest.hexdigest()


def image_dataset(name: str, records: Iterable[ImageRecord]) -> DatasetVersion:
    """Return the version that these records are, counted by role and split."""
    ordered = sorted_records(records)
    counts = Counter(f"{record.role}/{record.split}" for record in ordered)
    return DatasetVersion(name, rows_digest(ordered), dict(sorted(counts.items())))
