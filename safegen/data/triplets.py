"""Triplets: each unsafe picture, its censored form, and a benign partner, all at the model's size."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from safegen.data.censor import CensoredImage, CensorSettings, Roundtrip, censor_images
from safegen.data.ingest import Progress
from safegen.data.manifest import manifest_key, quarantine_key, write_triplets
from safegen.data.picture import get_picture, put_picture
from safegen.domain.dataset import DatasetVersion, ImageRecord, QuarantineRecord, Reason, TripletRecord
from safegen.errors import ConfigError, DataError
from safegen.ports import Detector, ObjectStore


@dataclass(frozen=True, slots=True)
class TripletSettings:
    """How triplets are made.

    Attributes:
        size_px: Side of the model's pictures.
        censor: How the unsafe ones are censored.
        lookalike_share: Share of benign partners that are drawn from the look-alikes, 0..1.
        seed: Of the choice of partners.
        max_triplets: Take no more than this many unsafe pictures, drawn by the seed; None for all.
        batch_size: Pictures censored at a time.
    """

    size_px: int
    censor: CensorSettings
    lookalike_share: float = 0.0
    seed: int = 0
    max_triplets: int | None = None
    batch_size: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.lookalike_share <= 1:
            raise ConfigError(f"lookalike_share is {self.lookalike_share}; expected 0..1")
        if (
            self.size_px < 1
            or self.batch_size < 1
            or (self.max_triplets is not None and self.max_triplets < 1)
        ):
            raise ConfigError(f"triplet settings {self} make no sense: expected positive sizes")


@dataclass(frozen=True, slots=True)
class TripletResult:
    """What making triplets led to.

    Attributes:
        dataset: Version of the set of triplets: name, digest, counts.
        manifest_uri: Where its manifest is.
        quarantine_uri: Where the list of pictures is that could not be censored.
        quarantined: Their number, by reason.
    """

    dataset: DatasetVersion
    manifest_uri: str
    quarantine_uri: str
    quarantined: Mapping[str, int]


def lookalike_digests(records: Iterable[ImageRecord], words: Collection[str]) -> frozenset[str]:
    """Return the digests of benign images whose caption holds one of `words` as a whole word, in any case.

    Args:
        records: A dataset.
        words: Names of harmless things that look like the concept.
    """
    if not words:
        return frozenset()
    pattern = re.compile(rf"\b(?:{'|'.join(re.escape(word) for word in sorted(words))})\b", re.IGNORECASE)
    return frozenset(one.sha256 for one in records if one.role == "benign" and pattern.search(one.caption))


def build_triplets(
    records: Sequence[ImageRecord],
    store: ObjectStore,
    detector: Detector,
    roundtrip: Roundtrip,
    *,
    name: str,
    settings: TripletSettings,
    lookalikes: Collection[str] = frozenset(),
    progress: Progress | None = None,
) -> TripletResult:
    """Censor the unsafe training images of a dataset and give each a benign partner.

    Args:
        records: The dataset; held-out images are not used.
        store: Where its pictures are, and where censored pictures and the manifest go.
        detector: Finds the concept.
        roundtrip: The model's VAE, as `censor_images` wants it.
        name: Name of the set of triplets.
        settings: How.
        lookalikes: Digests of benign images that look like the concept.
        progress: Told of every batch.

    Returns:
        The version of the set.

    Raises:
        DataError: There are no unsafe or no benign training images, look-alikes are asked for and there are none,
            or not one picture could be censored.
        EvaluationError: The detector failed.
        StorageError: The store failed.
    """
    unsafe = _chosen_unsafe(records, settings)
    pairs = list(zip(unsafe, _partners(records, len(unsafe), lookalikes, settings), strict=True))
    triplets: list[TripletRecord] = []
    refused: list[QuarantineRecord] = []
    for start in range(0, len(pairs), settings.batch_size):
        batch = pairs[start : start + settings.batch_size]
        for made in _make(batch, store, detector, roundtrip, lookalikes=lookalikes, settings=settings):
            triplets.append(made) if isinstance(made, TripletRecord) else refused.append(made)
        if progress is not None:
            progress(start + len(batch), len(pairs))
    counts = dict(Counter(str(one.reason) for one in refused))
    if not triplets:
        raise DataError(
            f"not one of {len(pairs)} unsafe pictures could be censored: {counts}; see the settings"
        )
    version = write_triplets(store, name, triplets, refused)
    return TripletResult(
        dataset=version,
        manifest_uri=f"{store.uri}/{manifest_key(name, version.digest)}",
        quarantine_uri=f"{store.uri}/{quarantine_key(name, version.digest)}",
        quarantined=counts,
    )


def fit_square(pixels: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Return a picture's central square at another size (Lanczos); the same picture if it has that size.

    Args:
        pixels: [height, width, 3] uint8 RGB.
        size_px: Side of the result.
    """
    height, width, _ = pixels.shape
    if (height, width) == (size_px, size_px):
        return pixels
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    square = Image.fromarray(pixels[top : top + side, left : left + side])
    resized = square.resize((size_px, size_px), Image.Resampling.LANCZOS)
    return np.array(resized, dtype=np.uint8)


def _make(
    pairs: Sequence[tuple[ImageRecord, ImageRecord]],
    store: ObjectStore,
    detector: Detector,
    roundtrip: Roundtrip,
    *,
    lookalikes: Collection[str],
    settings: TripletSettings,
) -> Iterator[TripletRecord | QuarantineRecord]:
    images = np.stack(
        [fit_square(get_picture(store, unsafe.sha256), settings.size_px) for unsafe, _ in pairs]
    )
    outcomes = censor_images(images, detector, roundtrip, settings.censor)
    for (unsafe, benign), pixels, outcome in zip(pairs, images, outcomes, strict=True):
        if not isinstance(outcome, CensoredImage):
            reason = Reason.CENSOR_FAILED if outcome.found else Reason.CONCEPT_NOT_SHOWN
            yield QuarantineRecord(unsafe.source, unsafe.source_sha256, "unsafe", reason, outcome.detail)
            continue
        partner = fit_square(get_picture(store, benign.sha256), settings.size_px)
        yield TripletRecord(
            unsafe_sha=put_picture(store, pixels),
            censored_sha=put_picture(store, outcome.pixels),
            benign_sha=put_picture(store, partner),
            unsafe_origin_sha=unsafe.sha256,
            benign_origin_sha=benign.sha256,
            unsafe_caption=unsafe.caption,
            benign_caption=benign.caption,
            boxes=json.dumps(outcome.regions),
            rounds=outcome.rounds,
            block_px=outcome.block_px,
            lookalike=benign.sha256 in lookalikes,
        )


def _chosen_unsafe(records: Sequence[ImageRecord], settings: TripletSettings) -> list[ImageRecord]:
    unsafe = _training(records, "unsafe")
    if not unsafe:
        raise DataError("the dataset has no unsafe training image; ingest some, or lower held_out_rate")
    if settings.max_triplets is None or settings.max_triplets >= len(unsafe):
        return unsafe
    chosen = np.random.default_rng([settings.seed, 0]).permutation(len(unsafe))[: settings.max_triplets]
    return [unsafe[place] for place in sorted(chosen)]


def _partners(
    records: Sequence[ImageRecord], count: int, lookalikes: Collection[str], settings: TripletSettings
) -> list[ImageRecord]:
    """Draw partners without repetition as long as there are enough, a share of them from the look-alikes."""
    benign = _training(records, "benign")
    alike = [one for one in benign if one.sha256 in lookalikes]
    plain = [one for one in benign if one.sha256 not in lookalikes]
    wanted = round(settings.lookalike_share * count)
    if (wanted and not alike) or (count - wanted and not plain):
        raise DataError(
            f"{count} triplets with a look-alike share of {settings.lookalike_share} want benign partners of both "
            f"kinds; there are {len(alike)} look-alikes and {len(plain)} others among the training images"
        )
    random = np.random.default_rng([settings.seed, 1])
    drawn = _draw(alike, wanted, random) + _draw(plain, count - wanted, random)
    return [drawn[place] for place in random.permutation(count)]


def _draw(pool: Sequence[ImageRecord], count: int, random: np.random.Generator) -> list[ImageRecord]:
    drawn: list[ImageRecord] = []
    while len(drawn) < count:
        drawn += [pool[place] for place in random.permutation(len(pool))]
    return drawn[:count]


def _training(records: Iterable[ImageRecord], role: str) -> list[ImageRecord]:
    chosen = [one for one in records if one.role == role and one.split == "train"]
    return sorted(chosen, key=lambda one: one.sha256)
