"""Metrics of a suite from what the nets measured: FID, KID, CLIP score, perceptual distance and LPIPS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float

from safegen.domain.report import Metric, Plain, metric_of
from safegen.domain.statistics import NotComputable, mean_interval
from safegen.evaluation.quality import PairMeasures, QualityNets
from safegen.metrics.feature_net import FeatureNet
from safegen.metrics.fid import frechet_distance
from safegen.metrics.kid import SUBSETS, KernelDistance, kernel_distance, paired_kernel_distance

_NAMES = ("fid", "kid", "clip_score", "base_clip_score", "clip_score_drop", "perceptual_distance")
_NO_PAIR = NotComputable("no pair of pictures could be scored", 0)


@dataclass(frozen=True, slots=True)
class Reference:
    """Pictures that FID and KID compare with in the place of the base's.

    Attributes:
        name: Such as "coco-30k".
        features: Of the pictures, by the feature net of the evaluation.
    """

    name: str
    features: Float[torch.Tensor, "n features"]


def quality_metrics(
    measures: PairMeasures | None, nets: QualityNets, *, seed: int, reference: Reference | None = None
) -> Iterator[Metric]:
    """Yield the metrics of one suite.

    Args:
        measures: Of its pairs; None where no pair could be scored, which gives metrics with that reason.
        nets: Which nets measured.
        seed: Of KID's subsets.
        reference: Pictures to compare with; None for the base's own, by the same prompts and seeds.
    """
    if measures is None:
        names = _NAMES if nets.lpips is None else (*_NAMES, "lpips")
        yield from (metric_of(name, _NO_PAIR) for name in names)
        return
    yield from _set_distances(measures, nets, seed=seed, reference=reference)
    clip = nets.clip
    model: dict[str, Plain] = {
        "model": clip.name,
        "model_sha256": clip.sha256,
        "scale": "cosine x 100",
        "resize": clip.resize_rule,
    }
    base, ours = measures.base_clip.numpy(), measures.candidate_clip.numpy()
    for name, values in (("clip_score", ours), ("base_clip_score", base), ("clip_score_drop", ours - base)):
        yield metric_of(name, mean_interval(values), method=dict(model))
    method: dict[str, Plain] = {
        **FeatureNet(clip).method,
        "layers": ", ".join(str(layer) for layer in nets.layers),
        "form": "channel-normalised hidden states; not LPIPS",
    }
    yield metric_of("perceptual_distance", mean_interval(measures.distance.numpy()), method=method)
    if nets.lpips is not None:
        yield metric_of("lpips", mean_interval(measures.lpips.numpy()), method=nets.lpips.method)


def _set_distances(
    measures: PairMeasures, nets: QualityNets, *, seed: int, reference: Reference | None
) -> Iterator[Metric]:
    compared = measures.base_features if reference is None else reference.features
    n = len(measures.candidate_features)
    method: dict[str, Plain] = {
        **nets.feature_method,
        "reference": "base, same prompts and seeds" if reference is None else reference.name,
        "reference_n": len(compared),
    }
    fid = frechet_distance(compared, measures.candidate_features)
    yield metric_of("fid", fid, n=n, method=dict(method))
    yield _kernel_metric(measures, reference, n=n, seed=seed, method=method)


def _kernel_metric(
    measures: PairMeasures, reference: Reference | None, *, n: int, seed: int, method: dict[str, Plain]
) -> Metric:
    if reference is None:
        method = {**method, "estimator": "paired U-statistic: a picture is not compared with its own twin"}
        paired = paired_kernel_distance(measures.base_features, measures.candidate_features)
        return metric_of("kid", paired, method=method)
    kid = kernel_distance(reference.features, measures.candidate_features, seed=seed)
    if not isinstance(kid, KernelDistance):
        return metric_of("kid", kid, method=method)
    method = {**method, "std": kid.std, "subsets": SUBSETS, "subset_size": kid.subset_size, "seed": seed}
    return metric_of("kid", kid.value, n=n, method=method)
