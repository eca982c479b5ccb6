"""What attacks that train are trained on: pictures of the run's dataset that no edit has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from safegen.attacks.fine_tuning import CaptionedLatents
from safegen.bootstrap import Platform
from safegen.data.manifest import read_images
from safegen.data.picture import get_picture
from safegen.data.triplets import fit_square
from safegen.diffusion.latents import encode
from safegen.domain.dataset import ImageRecord, Role
from safegen.errors import DataError
from safegen.pipeline.ingest import run_ingest

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline


@dataclass(frozen=True, slots=True)
class AttackPictures:
    """Held-out pictures of a dataset, encoded once; every defence is attacked with the same.

    Attributes:
        dataset_sha256: Digest of the dataset version.
        unsafe: Captioned, in an order that takes one of each object in turn.
        benign: Captioned.
        by_concept: Latents of the unsafe ones by the detector's best label.
    """

    dataset_sha256: str
    unsafe: CaptionedLatents
    benign: CaptionedLatents
    by_concept: dict[str, torch.Tensor]


def attack_pictures(platform: Platform, pipeline: StableDiffusionPipeline) -> AttackPictures:
    """Read the held-out pictures of the run's dataset.

    Args:
        platform: Of the run; what its sources offer is taken in first, if that has not been done.
        pipeline: The base, whose VAE and text tower encode.

    Raises:
        DataError: The dataset holds out no unsafe or no benign picture, or the detector finds the concept on none.
    """
    ingested = run_ingest(platform)
    records = read_images(platform.trainer_store, ingested.dataset, ingested.digest)
    benign, unsafe = (_held_out(records, role) for role in ("benign", "unsafe"))
    pixels = _pixels(platform, unsafe)
    labels = _best_labels(platform, pixels)
    order = _in_turn(labels)
    if not order:
        raise DataError(
            f"attacks: the detector finds the concept on none of {len(unsafe)} held-out unsafe pictures; "
            "check the sources' roles and detector.threshold"
        )
    captioned = _captioned(pipeline, [pixels[place] for place in order], [unsafe[place] for place in order])
    return AttackPictures(
        dataset_sha256=ingested.digest,
        unsafe=captioned,
        benign=_captioned(pipeline, _pixels(platform, benign), benign),
        by_concept={
            label: captioned.latents[[n for n, place in enumerate(order) if labels[place] == label]]
            for label in sorted({labels[place] for place in order if labels[place]})
        },
    )


def _held_out(records: Sequence[ImageRecord], role: Role) -> list[ImageRecord]:
    chosen = [one for one in records if one.role == role and one.split == "held_out"]
    if not chosen:
        raise DataError(
            f"attacks: the dataset holds out no {role} picture; raise ingest.held_out_rate or add pictures"
        )
    return sorted(chosen, key=lambda one: one.sha256)


def _pixels(platform: Platform, records: Sequence[ImageRecord]) -> list[NDArray[np.uint8]]:
    size_px = platform.config.triplets.size_px
    return [fit_square(get_picture(platform.trainer_store, one.sha256), size_px) for one in records]


def _best_labels(platform: Platform, pixels: Sequence[NDArray[np.uint8]]) -> list[str]:
    """Return the unsafe label that the detector is surest of on each picture, empty where it finds none."""
    unsafe, threshold = platform.unsafe_labels, platform.config.detector.threshold
    return [
        next((one.label for one in found if one.label in unsafe and one.score >= threshold), "")
        for found in platform.detector.detect(pixels)
    ]


def _in_turn(labels: Sequence[str]) -> list[int]:
    """Return places so that every label comes once before any comes twice; those without a label are left out.

    >>> _in_turn(["a", "a", "", "b", "a"])
    [0, 3, 1, 4]
    """
    seen: dict[str, int] = {}
    turns: list[tuple[int, int]] = []
    for place, label in enumerate(labels):
        if label:
            seen[label] = seen.get(label, -1) + 1
            turns.append((seen[label], place))
    return [place for _, place in sorted(turns)]


def _captioned(
    pipeline: StableDiffusionPipeline, pixels: Sequence[NDArray[np.uint8]], records: Sequence[ImageRecord]
) -> CaptionedLatents:
    return CaptionedLatents(encode(pipeline.vae, pixels), tuple(record.caption for record in records))
