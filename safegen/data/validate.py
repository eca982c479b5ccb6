"""Validate a dataset or a set of triplets: look into the store, make a table, run the suites over it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.data.checked_suite import ROW_ID, ValidationResult, run_suites
from safegen.data.detections import ScoredImages
from safegen.data.duplicates import NearIndex
from safegen.data.picture import get_picture
from safegen.data.suites import SuiteRules, dataset_suite, image_suite, triplet_suite
from safegen.domain.dataset import ROLES, SPLITS, ImageRecord, Role, TripletRecord, row_of
from safegen.errors import ConfigError, DataError, ObjectNotFoundError
from safegen.ports import ObjectStore

if TYPE_CHECKING:
    import pandas as pd

_READERS = 8


@dataclass(frozen=True, slots=True)
class ConceptCheck:
    """One detector's say on a dataset.

    Attributes:
        name: Names its column ("score_<name>").
        scored: What it found in the pictures.
        labels: Its labels of the concept.
        threshold: The score from which a label counts, 0..1.
        shown_in: Roles whose every image must show the concept.
        absent_from: Roles of which no image may show it.
    """

    name: str
    scored: ScoredImages
    labels: frozenset[str]
    threshold: float
    shown_in: frozenset[Role] = frozenset({"unsafe"})
    absent_from: frozenset[Role] = frozenset({"benign"})

    def __post_init__(self) -> None:
        if not self.labels or not 0 < self.threshold <= 1:
            raise ConfigError(
                f"concept check {self.name!r} has labels {sorted(self.labels)} and threshold {self.threshold}; "
                "expected at least one label and a threshold in (0, 1]"
            )


def validate_images(
    records: Sequence[ImageRecord],
    store: ObjectStore,
    checks: Sequence[ConceptCheck],
    *,
    rules: SuiteRules,
    max_near_bits: int | None,
    docs_dir: Path,
) -> ValidationResult:
    """Run the suites "unsafe", "benign" and "dataset" over a dataset.

    Args:
        records: The dataset.
        store: Where its pictures are; every one is read, its digest taken and its size compared.
        checks: What detectors say; a picture that was not scored fails.
        rules: The numbers in the suites.
        max_near_bits: Perceptual hashes this near count as the same picture in two splits; None for equal bytes only.
        docs_dir: Folder of the Data Docs site.

    Returns:
        Whether all is as expected; call `require` on it to stop otherwise.

    Raises:
        DataError: A role has no image at all, or a suite was not looked at in full.
        StorageError: The store failed.
    """
    if not checks:
        raise ConfigError(
            "no detector's say is given to validate with; score the images and give a ConceptCheck"
        )
    table = image_table(records, store, checks, max_near_bits=max_near_bits)
    suites = [dataset_suite(table, rules)]
    for role in ROLES:
        shown = {f"score_{one.name}": one.threshold for one in checks if role in one.shown_in}
        absent = {f"score_{one.name}": one.threshold for one in checks if role in one.absent_from}
        rows = table.query("role == @role").reset_index(drop=True)
        suites.append(image_suite(role, rows, rules, shown=shown, absent=absent))
    return run_suites(suites, docs_dir)


def validate_triplets(
    triplets: Sequence[TripletRecord],
    records: Sequence[ImageRecord],
    store: ObjectStore,
    check: ConceptCheck,
    *,
    rules: SuiteRules,
    size_px: int,
    docs_dir: Path,
) -> ValidationResult:
    """Run the suite "triplets".

    Args:
        triplets: What is to be trained on.
        records: The dataset that they were made from.
        store: Where the pictures are.
        check: What the detector says of the censored pictures; its threshold is what they must stay below.
        rules: The numbers in the suite.
        size_px: Side that every picture must have.
        docs_dir: Folder of the Data Docs site.

    Returns:
        Whether all is as expected; call `require` on it to stop otherwise.

    Raises:
        DataError: There is no triplet, or the suite was not looked at in full.
        StorageError: The store failed.
    """
    table = triplet_table(triplets, records, store, check, size_px=size_px)
    return run_suites([triplet_suite(table, rules, clean_threshold=check.threshold)], docs_dir)


def image_table(
    records: Sequence[ImageRecord],
    store: ObjectStore,
    checks: Sequence[ConceptCheck],
    *,
    max_near_bits: int | None,
) -> pd.DataFrame:
    """Return the manifest with what the store and the detectors say beside it.

    Columns beyond the manifest's: declared and stored ("digest widthxheight", or why it cannot be had), score_<name>
    (NaN where a picture was not scored), twin_in_other_split (a digest, or "none"), and counts by role.
    """
    import pandas as pd

    columns = list(ImageRecord.__dataclass_fields__)
    table = pd.DataFrame([row_of(one) for one in records], columns=columns)
    table["declared"] = [f"{one.sha256} {one.width_px}x{one.height_px}" for one in records]
    table["stored"] = _all_stored(store, [one.sha256 for one in records])
    twins = split_twins(records, max_near_bits)
    table["twin_in_other_split"] = [twins.get(one.sha256, "none") for one in records]
    for check in checks:
        table[f"score_{check.name}"] = pd.Series(
            [_score(check, one.sha256) for one in records], dtype="float64"
        )
    for role in ROLES:
        of_role = [one for one in records if one.role == role]
        table[f"{role}_images"] = len(of_role)
        table[f"{role}_held_out"] = sum(one.split == "held_out" for one in of_role)
    return table


def triplet_table(
    triplets: Sequence[TripletRecord],
    records: Sequence[ImageRecord],
    store: ObjectStore,
    check: ConceptCheck,
    *,
    size_px: int,
) -> pd.DataFrame:
    """Return the triplets with what the dataset, the store and the detector say beside them."""
    import pandas as pd

    splits = {one.sha256: one.split for one in records}
    table = pd.DataFrame([row_of(one) for one in triplets], columns=list(TripletRecord.__dataclass_fields__))
    table[ROW_ID] = table["unsafe_sha"]
    table["unsafe_split"] = [splits.get(one.unsafe_origin_sha, "not in the dataset") for one in triplets]
    table["benign_split"] = [splits.get(one.benign_origin_sha, "not in the dataset") for one in triplets]
    table["regions"] = [len(json.loads(one.boxes)) for one in triplets]
    scores = [_score(check, one.censored_sha) for one in triplets]
    table["censored_score"] = pd.Series(scores, dtype="float64")
    for name in ("unsafe", "censored", "benign"):
        digests: list[str] = list(table[f"{name}_sha"])
        table[f"{name}_declared"] = [f"{sha256} {size_px}x{size_px}" for sha256 in digests]
        table[f"{name}_stored"] = _all_stored(store, digests)
    return table


def split_twins(records: Iterable[ImageRecord], max_near_bits: int | None) -> dict[str, str]:
    """Return, for held-out images that are also trained on, the digest of the training image.

    Args:
        records: A dataset.
        max_near_bits: Perceptual hashes of one role this near count as the same; None for equal source bytes only.
    """
    ordered = list(records)
    train = [one for one in ordered if one.split == SPLITS[0]]
    by_source = {one.source_sha256: one.sha256 for one in train}
    twins = {
        one.sha256: by_source[one.source_sha256]
        for one in ordered
        if one.split != SPLITS[0] and one.source_sha256 in by_source
    }
    if max_near_bits is not None:
        twins |= dict(_near_twins(ordered, max_near_bits))
    return twins


def _near_twins(records: Sequence[ImageRecord], max_near_bits: int) -> Iterator[tuple[str, str]]:
    for role in ROLES:
        index = NearIndex(max_near_bits)
        for one in records:
            if one.role == role and one.split == SPLITS[0]:
                index.add(int(one.phash, 16), one.sha256)
        for one in records:
            if one.role == role and one.split != SPLITS[0] and (found := index.find(int(one.phash, 16))):
                yield one.sha256, found[0]


def _all_stored(store: ObjectStore, digests: Sequence[str]) -> list[str]:
    with ThreadPoolExecutor(_READERS) as threads:
        return list(threads.map(lambda sha256: _stored(store, sha256), digests))


def _stored(store: ObjectStore, sha256: str) -> str:
    try:
        height, width, _ = get_picture(store, sha256).shape
    except ObjectNotFoundError:
        return "not in the store"
    except (DataError, OSError, ValueError):
        return "damaged"
    return f"{sha256} {width}x{height}"


def _score(check: ConceptCheck, sha256: str) -> float:
    """Return a score, or NaN (which fails) if there is none."""
    try:
        return check.scored.concept_score(sha256, check.labels)
    except DataError:
        return math.nan
