"""Measures what a candidate's pictures lost against the base's: features, fit to prompts, distance pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from safegen.errors import EvaluationError
from safegen.evaluation.generate import DrawnSuite, Progress
from safegen.evaluation.shards import DrawnPicture
from safegen.metrics.clip_pair import ClipPair
from safegen.metrics.clip_score import clip_scores
from safegen.metrics.perceptual_distance import perceptual_distances

_BATCH_SIZE = 16
_LAYERS = 5


@dataclass(frozen=True, slots=True)
class PairMeasures:
    """What the CLIP model says of pairs of pictures, one entry a pair.

    Attributes:
        base_features: Of the base's pictures, for FID and KID.
        candidate_features: Of the candidate's.
        base_clip: CLIP score of each picture of the base.
        candidate_clip: Of the candidate's.
        distance: Perceptual distance of each pair.
        layers: Hidden states that the distance compares, 0 the input of the first layer.
    """

    base_features: Float[torch.Tensor, "n features"]
    candidate_features: Float[torch.Tensor, "n features"]
    base_clip: Float[torch.Tensor, "n"]
    candidate_clip: Float[torch.Tensor, "n"]
    distance: Float[torch.Tensor, "n"]
    layers: tuple[int, ...]


def measure_pairs(
    base: DrawnSuite,
    candidate: DrawnSuite,
    usable: Sequence[bool],
    clip: ClipPair,
    *,
    what: str,
    progress: Progress,
) -> PairMeasures | None:
    """Measure the pairs of pictures of one suite; every picture goes through the vision tower once.

    Args:
        base: Pictures of the base.
        candidate: Pictures of the candidate, in the same order.
        usable: For each pair, whether both pictures could be scored; the others are left out.
        clip: The model.
        what: For progress.
        progress: Told after every shard.

    Returns:
        The measures, or None where no pair is usable.
    """
    layers = evenly_spaced(clip.depth + 1, _LAYERS)
    flags, parts, done = iter(usable), [], 0
    for ours, theirs in zip(base.shards(), candidate.shards(), strict=True):
        pairs = [pair for pair, use in zip(zip(ours, theirs, strict=True), flags, strict=False) if use]
        starts = range(0, len(pairs), _BATCH_SIZE)
        parts += [_measure(pairs[start : start + _BATCH_SIZE], clip, layers) for start in starts]
        done += len(ours)
        progress(what, done, len(base.suite.rows))
    if not parts:
        return None
    return PairMeasures(*(torch.cat(columns) for columns in zip(*parts, strict=True)), layers=layers)


def evenly_spaced(count: int, most: int) -> tuple[int, ...]:
    """Return at most `most` indices below `count`, spread evenly, with the last but without the first.

    >>> evenly_spaced(25, 5), evenly_spaced(4, 5)
    ((5, 10, 14, 19, 24), (1, 2, 3))
    """
    last = count - 1
    wanted = min(most, last)
    return tuple(int(step * last / wanted + 0.5) for step in range(1, wanted + 1))


def _measure(
    pairs: list[tuple[DrawnPicture, DrawnPicture]], clip: ClipPair, layers: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    prompts = clip.text_embeddings([base.row.text for base, _ in pairs])
    base_embedded, base_states, base_features = clip.picture_embeddings([_pixels(base) for base, _ in pairs])
    embedded, states, features = clip.picture_embeddings([_pixels(candidate) for _, candidate in pairs])
    return (
        base_features,
        features,
        clip_scores(base_embedded, prompts),
        clip_scores(embedded, prompts),
        perceptual_distances([base_states[i] for i in layers], [states[i] for i in layers]),
    )


def _pixels(picture: DrawnPicture) -> NDArray[np.uint8]:
    pixels = picture.pixels()
    if pixels is None:
        raise EvaluationError(
            f"cannot measure picture {picture.row.prompt_id}: it was read before and is not now"
        )
    return pixels
