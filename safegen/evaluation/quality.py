"""Measures what a candidate's pictures lost against the base's: features, fit to prompts, distance pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from safegen.domain.report import Plain
from safegen.errors import EvaluationError
from safegen.evaluation.shards import DrawnPicture
from safegen.metrics.clip_pair import ClipPair
from safegen.metrics.clip_score import clip_scores
from safegen.metrics.feature_net import FeatureExtractor, FeatureNet
from safegen.metrics.lpips import Lpips
from safegen.metrics.perceptual_distance import perceptual_distances

_BATCH_SIZE = 16
_LAYERS = 5

Pair = tuple[DrawnPicture, DrawnPicture]


@dataclass(frozen=True, slots=True)
class QualityNets:
    """The nets that measure.

    Attributes:
        clip: For the CLIP score and the perceptual distance.
        features: For FID and KID; None takes the vision tower of `clip`.
        lpips: For LPIPS; None leaves it out.
    """

    clip: ClipPair
    features: FeatureExtractor | None = None
    lpips: Lpips | None = None

    @property
    def feature_method(self) -> dict[str, Plain]:
        """What a report says of the net under FID and KID."""
        return (self.features or FeatureNet(self.clip)).method

    @property
    def layers(self) -> tuple[int, ...]:
        """Hidden states of the vision tower that the perceptual distance compares, 0 the input of the first layer."""
        return evenly_spaced(self.clip.depth + 1, _LAYERS)


@dataclass(frozen=True, slots=True)
class PairMeasures:
    """What the nets say of pairs of pictures, one entry a pair.

    Attributes:
        base_features: Of the base's pictures, for FID and KID.
        candidate_features: Of the candidate's.
        base_clip: CLIP score of each picture of the base.
        candidate_clip: Of the candidate's.
        distance: Perceptual distance of each pair.
        lpips: LPIPS of each pair; empty where it is not measured.
    """

    base_features: Float[torch.Tensor, "n features"]
    candidate_features: Float[torch.Tensor, "n features"]
    base_clip: Float[torch.Tensor, "n"]
    candidate_clip: Float[torch.Tensor, "n"]
    distance: Float[torch.Tensor, "n"]
    lpips: Float[torch.Tensor, "m"]


def measure_pairs(pairs: Sequence[Pair], nets: QualityNets) -> list[PairMeasures]:
    """Measure pairs of pictures of base and candidate, batch by batch.

    Every picture goes through each net once.

    Raises:
        EvaluationError: A picture cannot be read.
    """
    starts = range(0, len(pairs), _BATCH_SIZE)
    return [_measure(pairs[start : start + _BATCH_SIZE], nets) for start in starts]


def joined(parts: Sequence[PairMeasures]) -> PairMeasures | None:
    """Return the measures of all batches as one, or None where there is no batch."""
    if not parts:
        return None
    return PairMeasures(
        base_features=torch.cat([part.base_features for part in parts]),
        candidate_features=torch.cat([part.candidate_features for part in parts]),
        base_clip=torch.cat([part.base_clip for part in parts]),
        candidate_clip=torch.cat([part.candidate_clip for part in parts]),
        distance=torch.cat([part.distance for part in parts]),
        lpips=torch.cat([part.lpips for part in parts]),
    )


def evenly_spaced(count: int, most: int) -> tuple[int, ...]:
    """Return at most `most` indices below `count`, spread evenly, with the last but without the first.

    >>> evenly_spaced(25, 5), evenly_spaced(4, 5)
    ((5, 10, 14, 19, 24), (1, 2, 3))
    """
    last = count - 1
    wanted = min(most, last)
    return tuple(int(step * last / wanted + 0.5) for step in range(1, wanted + 1))


def _measure(pairs: Sequence[Pair], nets: QualityNets) -> PairMeasures:
    prompts = nets.clip.text_embeddings([base.row.text for base, _ in pairs])
    base, candidate = ([_pixels(pair[side]) for pair in pairs] for side in (0, 1))
    base_embedded, base_states, base_features = nets.clip.picture_embeddings(base)
    embedded, states, features = nets.clip.picture_embeddings(candidate)
    if nets.features is not None:
        base_features, features = nets.features(_stacked(base)), nets.features(_stacked(candidate))
    return PairMeasures(
        base_features=base_features,
        candidate_features=features,
        base_clip=clip_scores(base_embedded, prompts),
        candidate_clip=clip_scores(embedded, prompts),
        distance=perceptual_distances(
            [base_states[i] for i in nets.layers], [states[i] for i in nets.layers]
        ),
        lpips=torch.empty(0) if nets.lpips is None else nets.lpips(_stacked(base), _stacked(candidate)),
    )


def _stacked(pictures: Sequence[NDArray[np.uint8]]) -> UInt8[torch.Tensor, "b 3 height width"]:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def _pixels(picture: DrawnPicture) -> NDArray[np.uint8]:
    pixels = picture.pixels()
    if pixels is None:
        raise EvaluationError(
            f"cannot measure picture {picture.row.prompt_id}: it was read before and is not now"
        )
    return pixels
