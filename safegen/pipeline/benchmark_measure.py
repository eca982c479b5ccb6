"""Measures what a protected model gives its users on a suite, against the unedited model on the same prompts and seeds.

A prompt that is refused and a picture that is blacked out count as not drawn: nothing unsafe, no subject, no part in
fidelity. Their shares stand beside the numbers that they improve.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from safegen.defences.defence import ProtectedModel
from safegen.defences.protected_drawing import Fate, draw_protected, looked_at, refused_prompts
from safegen.diffusion.sampler import DrawRequest, SamplerSettings
from safegen.domain.benchmark import NO_ATTACK, BenchmarkRow, JudgedPicture
from safegen.domain.removal import paired_bootstrap_nrr_parts, totals_by_prompt
from safegen.domain.report import Metric, metric_of
from safegen.domain.statistics import Estimate, Interval, wilson_interval
from safegen.evaluation.generate import DrawnSuite
from safegen.evaluation.prompt_suite import PromptSuite
from safegen.evaluation.quality import PairMeasures, QualityNets, joined, measure_pairs
from safegen.evaluation.quality_metrics import quality_metrics
from safegen.evaluation.score import ScoredPicture, score_suite
from safegen.evaluation.seeded_suite import SeededSuite
from safegen.evaluation.shards import DrawnPicture
from safegen.evaluation.suite_report import Judgement, ScoredSuite, suite_report
from safegen.ports import Detector


@dataclass(frozen=True, slots=True)
class Delivered:
    """What users of a protected model are given for a suite, in the order of its prompts.

    Attributes:
        drawn: Where all pictures are, withheld ones among them.
        scores: Of what is delivered; what is not shows nothing.
        fates: What became of each prompt.
    """

    drawn: DrawnSuite
    scores: tuple[ScoredPicture, ...]
    fates: tuple[Fate, ...]


@dataclass(frozen=True, slots=True)
class SuiteCase:
    """A suite as the unedited model and a defence deliver it.

    Attributes:
        suite: What was asked.
        base: By the unedited model.
        ours: By the defence.
        usable: For each pair, whether both gave a picture that could be scored.
        measures: Of the usable pairs, in their order; None for unsafe suites, and where there is none.
    """

    suite: SeededSuite
    base: Delivered
    ours: Delivered
    usable: tuple[bool, ...]
    measures: PairMeasures | None


def deliver(drawn: DrawnSuite, model: ProtectedModel, detector: Detector) -> Delivered:
    """Put drawn pictures through a model's filters and score what is left.

    Args:
        drawn: All pictures of a suite by the model's weights and guidance.
        model: Whose filters.
        detector: Who scores.

    Raises:
        EvaluationError: The detector failed, or a shard was damaged.
    """
    refused = refused_prompts(model, [row.text for row in drawn.suite.rows])
    pixels = [picture.pixels() for shard in drawn.shards() for picture in shard]
    looked = looked_at(model, [None if no else one for one, no in zip(pixels, refused, strict=True)])
    fates: list[Fate] = ["refused" if no else one.fate for one, no in zip(looked, refused, strict=True)]
    scores = [
        replace(score, detections=(), unscored_reason=None) if fate in ("refused", "blacked out") else score
        for score, fate in zip(score_suite(drawn, detector), fates, strict=True)
    ]
    return Delivered(drawn, tuple(scores), tuple(fates))


def compare(suite: SeededSuite, base: Delivered, ours: Delivered, nets: QualityNets) -> SuiteCase:
    """Set what a defence delivers beside what the unedited model does, and measure the pairs."""
    both = zip(base.scores, ours.scores, ours.fates, strict=True)
    usable = tuple(one.scored and other.scored and fate == "drawn" for one, other, fate in both)
    measures = None
    if suite.suite.kind != "unsafe":
        pairs = zip(_pictures(base.drawn), _pictures(ours.drawn), strict=True)
        kept = [pair for pair, use in zip(pairs, usable, strict=True) if use]
        measures = joined(measure_pairs(kept, nets))
    return SuiteCase(suite, base, ours, usable, measures)


def suite_rows(
    case: SuiteCase, judgement: Judgement, nets: QualityNets, *, defence: str, attack: str = NO_ATTACK
) -> list[BenchmarkRow]:
    """Return a suite's numbers, over all seeds and seed by seed."""
    name = case.suite.suite.name
    rows = [
        row_of(metric, defence=defence, suite=name, attack=attack, seed=seed)
        for seed in (None, *dict.fromkeys(case.suite.seeds))
        for metric in _metrics(case, case.suite.places(seed), judgement, nets)
    ]
    return [*rows, *_fate_rows(case, defence=defence, attack=attack)]


def row_of(metric: Metric, *, defence: str, suite: str, attack: str, seed: int | None) -> BenchmarkRow:
    """Return a metric as a row."""
    return BenchmarkRow(
        defence=defence,
        suite=suite,
        attack=attack,
        seed=seed,
        metric=metric.name,
        value=metric.value,
        low=metric.low,
        high=metric.high,
        n=metric.n,
        reason=metric.reason,
    )


def judged_pictures(case: SuiteCase, judgement: Judgement) -> tuple[JudgedPicture, ...]:
    """Return the pictures of a defence as tests in pairs need them."""
    return tuple(
        judged_picture(score, base, judgement, given=fate == "drawn")
        for score, fate, base in zip(case.ours.scores, case.ours.fates, case.base.scores, strict=True)
    )


def judged_picture(
    score: ScoredPicture, base: ScoredPicture, judgement: Judgement, *, given: bool = True
) -> JudgedPicture:
    """Return one picture beside the unedited model's; `given` says whether the user gets it."""
    return JudgedPicture(
        key=score.row.prompt_id,
        prompt=score.row.prompt_id.rpartition(":")[0],
        unsafe=judgement.unsafe_parts(score) > 0 if score.scored else None,
        kept=judgement.subject_shown(score),
        score=unsafe_score(score, judgement) if given else None,
        base_score=unsafe_score(base, judgement),
    )


def removal_rows(
    pictures: Mapping[int, Sequence[JudgedPicture]],
    judgement: Judgement,
    *,
    defence: str,
    suite: str,
    attack: str,
) -> list[BenchmarkRow]:
    """Return removal and unsafe rate from judged pictures by seed, over all seeds and seed by seed."""
    rows: list[BenchmarkRow] = []
    for seed in (None, *pictures):
        chosen = [one for own, part in pictures.items() if seed in (None, own) for one in part]
        scored = [one for one in chosen if one.unsafe is not None and one.base_score is not None]
        prompts = [one.prompt for one in scored]
        base = np.array([(one.base_score or 0.0) >= judgement.threshold for one in scored], dtype=np.bool_)
        ours = np.array([bool(one.unsafe) for one in scored], dtype=np.bool_)
        removal = paired_bootstrap_nrr_parts(
            totals_by_prompt(base, prompts),
            totals_by_prompt(ours, prompts),
            seed=judgement.bootstrap_seed,
            resamples=judgement.resamples,
        )
        estimates = {
            "nrr": removal,
            "unsafe_rate": wilson_interval(int(ours.sum()), len(scored)),
            "base_unsafe_rate": wilson_interval(int(base.sum()), len(scored)),
        }
        for name, estimate in estimates.items():
            metric = metric_of(name, estimate)
            rows.append(row_of(metric, defence=defence, suite=suite, attack=attack, seed=seed))
    return rows


def unsafe_score(score: ScoredPicture, judgement: Judgement) -> float | None:
    """Return the detector's best score of an unsafe label, 0 where it finds none; None where it could not score."""
    if not score.scored:
        return None
    scores = [one.score for one in score.detections if one.label in judgement.unsafe_labels]
    return max(scores, default=0.0)


def images_per_second(
    model: ProtectedModel, requests: Sequence[DrawRequest], sampler: SamplerSettings
) -> tuple[float, int]:
    """Return how many requests a protected model answers in a second, filters included, and how many were asked."""
    list(
        draw_protected(model, requests[:1], replace(sampler, steps=1))
    )  # what is set up once is no part of it
    started = time.perf_counter()
    answered = len(list(draw_protected(model, requests, sampler)))
    return answered / (time.perf_counter() - started), answered


def rate_row(
    name: str, estimate: Estimate, *, defence: str, suite: str, attack: str, seed: int | None
) -> BenchmarkRow:
    """Return an estimated rate that is none of the report's metrics as a row."""
    known = estimate if isinstance(estimate, Interval) else None
    return BenchmarkRow(
        defence=defence,
        suite=suite,
        attack=attack,
        seed=seed,
        metric=name,
        value=known.value if known else None,
        low=known.low if known else None,
        high=known.high if known else None,
        n=estimate.n,
        reason=None if isinstance(estimate, Interval) else estimate.reason,
    )


def _fate_rows(case: SuiteCase, *, defence: str, attack: str) -> Iterator[BenchmarkRow]:
    fates, name = case.ours.fates, case.suite.suite.name
    for seed in (None, *dict.fromkeys(case.suite.seeds)):
        places = case.suite.places(seed)
        for metric, fate in (("refused_rate", "refused"), ("blacked_out_rate", "blacked out")):
            count = sum(fates[place] == fate for place in places)
            estimate = wilson_interval(count, len(places))
            yield rate_row(metric, estimate, defence=defence, suite=name, attack=attack, seed=seed)


def _metrics(
    case: SuiteCase, places: Sequence[int], judgement: Judgement, nets: QualityNets
) -> tuple[Metric, ...]:
    whole = case.suite.suite
    part = PromptSuite(whole.name, whole.kind, tuple(whole.rows[place] for place in places))
    scored = ScoredSuite(
        part, [case.base.scores[place] for place in places], [case.ours.scores[place] for place in places]
    )
    quality: list[Metric] = []
    if whole.kind != "unsafe":
        measures = _measures_at(case, places)
        quality = list(quality_metrics(measures, nets, seed=judgement.bootstrap_seed))
    return suite_report(scored, judgement, quality).metrics


def _measures_at(case: SuiteCase, places: Sequence[int]) -> PairMeasures | None:
    """Return the measures of those usable pairs that stand at these places."""
    number_of = {place: number for number, place in enumerate(p for p, use in enumerate(case.usable) if use)}
    chosen = [number_of[place] for place in places if place in number_of]
    measures = case.measures
    if measures is None or not chosen:
        return None
    rows = torch.tensor(chosen)
    return PairMeasures(
        base_features=measures.base_features[rows],
        candidate_features=measures.candidate_features[rows],
        base_clip=measures.base_clip[rows],
        candidate_clip=measures.candidate_clip[rows],
        distance=measures.distance[rows],
        lpips=measures.lpips[rows] if len(measures.lpips) else measures.lpips,
    )


def _pictures(drawn: DrawnSuite) -> Iterator[DrawnPicture]:
    return (picture for shard in drawn.shards() for picture in shard)
