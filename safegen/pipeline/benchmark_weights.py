"""Cells that attack the weights of an edited model, without its filters and guidance: inversion and relearning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from safegen.attacks.fine_tuning import CaptionedLatents
from safegen.attacks.inversion import invert_concepts, learnt_tokens, with_learnt_tokens
from safegen.attacks.relearning import relearn
from safegen.defences.defence import ProtectedModel
from safegen.diffusion.sampler import DrawRequest, draw
from safegen.domain.benchmark import BenchmarkRow, JudgedPicture
from safegen.domain.digests import digest_json
from safegen.evaluation.prompt_suite import PromptRow, PromptSuite, derived_seed
from safegen.evaluation.score import score_pictures
from safegen.evaluation.seeded_suite import SeededSuite, join_seeds
from safegen.evaluation.shards import DrawnPicture, png_bytes
from safegen.pipeline.benchmark_bench import Bench, OpenedDefence, part_of, weights_only
from safegen.pipeline.benchmark_cell import CellResult, kept
from safegen.pipeline.benchmark_config import UNEDITED, InversionSection, RelearningSection
from safegen.pipeline.benchmark_measure import judged_picture, judged_pictures, removal_rows
from safegen.progress import progress_bar

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

INVERTED = "inverted"


def invert_weights(bench: Bench, opened: OpenedDefence, section: InversionSection) -> CellResult:
    """Learn the concept's tokens through a defence's weights, and draw with them.

    It is compared with the unedited model under the same attack: the tokens mean nothing to another model.
    """
    attack = "inversion"
    if opened.name != UNEDITED and not opened.has_own_weights:
        return CellResult(defence=opened.name, attack=attack, rows=())
    judged: dict[int, tuple[JudgedPicture, ...]] = {}
    for seed in bench.config.seeds:
        base, ours = (
            _inverted(bench, weights_only(model), section, seed) for model in (bench.base, opened.model)
        )
        case = bench.case(ours, _inverted_suite(bench, section, seed), base=base)
        judged[seed] = judged_pictures(case, bench.judgement)
    rows = removal_rows(judged, bench.judgement, defence=opened.name, suite=INVERTED, attack=attack)
    return CellResult(defence=opened.name, attack=attack, rows=tuple(rows))


def _inverted_suite(bench: Bench, section: InversionSection, seed: int) -> SeededSuite:
    rows: list[PromptRow] = []
    templates = section.budget.templates
    for label, token in learnt_tokens(bench.attack_pictures.by_concept).items():
        for number in range(section.pictures):
            key = f"{label.lower()}-{number}"
            text = templates[number % len(templates)].format(token=token)
            rows.append(PromptRow(key, text, derived_seed(key, seed), label))
    return join_seeds({seed: PromptSuite(INVERTED, "unsafe", tuple(rows))})


def _inverted(bench: Bench, model: ProtectedModel, section: InversionSection, seed: int) -> ProtectedModel:
    """Return a model with the tokens that were learnt through it; what was learnt before is read."""
    pictures, budget = bench.attack_pictures, section.budget
    identity = [model.sha256, pictures.dataset_sha256, budget.model_dump(mode="json"), seed, "inverted"]
    sha256 = digest_json(identity)
    path = bench.folder / "tokens" / f"{sha256[:32]}.safetensors"
    vectors = _read_vectors(path)
    if vectors is None:
        with progress_bar("invert", "steps") as show:
            vectors = invert_concepts(
                model.pipeline,
                pictures.by_concept,
                budget,
                seed=seed,
                on_step=lambda step, _: show(step, budget.steps),
            ).vectors
        _write_vectors(path, dict(vectors))
    return replace(model, sha256=sha256, pipeline=with_learnt_tokens(model.pipeline, vectors))


class RelearningCurve(BaseModel):
    """What is kept of one fine-tuning.

    Attributes:
        steps: Pictures after each measured number of steps, 0 among them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: dict[int, tuple[JudgedPicture, ...]]


def relearn_weights(bench: Bench, opened: OpenedDefence, section: RelearningSection) -> CellResult:
    """Fine-tune a defence's weights and measure removal on the way; each curve is kept once it is finished."""
    if not opened.has_own_weights:
        return CellResult(defence=opened.name, attack="relearning", rows=())
    explicit = bench.suites[bench.config.explicit]
    rows: list[BenchmarkRow] = []
    for name, pictures in _fine_tunings(bench, section).items():
        curves = {
            seed: _kept_curve(
                bench, opened, section, part_of(explicit, section.prompts, [seed]), name, pictures
            )
            for seed in section.seeds or bench.config.seeds
        }
        for step in (0, *section.budget.measure_at):
            judged = {seed: curve.steps[step] for seed, curve in curves.items()}
            rows += removal_rows(
                judged,
                bench.judgement,
                defence=opened.name,
                suite=bench.config.explicit,
                attack=f"{name}@{step}",
            )
    return CellResult(defence=opened.name, attack="relearning", rows=tuple(rows))


def _kept_curve(  # noqa: PLR0917
    bench: Bench,
    opened: OpenedDefence,
    section: RelearningSection,
    suite: SeededSuite,
    name: str,
    pictures: CaptionedLatents,
) -> RelearningCurve:
    identity = [
        opened.model.sha256,
        section.model_dump(mode="json"),
        bench.attack_pictures.dataset_sha256,
        suite.suite.sha256,
        bench.platform.config.evaluate.model_dump(mode="json"),
        name,
        suite.seeds[0],
    ]
    return kept(
        bench.folder / "relearned" / f"{digest_json(identity)[:32]}.json",
        RelearningCurve,
        lambda: _curve(bench, opened, section, suite, attack=name, pictures=pictures),
    )


def _fine_tunings(bench: Bench, section: RelearningSection) -> dict[str, CaptionedLatents]:
    """Return what to fine-tune on by the name of the attack."""
    budget, pictures = section.budget, bench.attack_pictures
    tunings = {"relearn-benign": pictures.benign.first(budget.benign_pictures)} if budget.benign else {}
    return tunings | {f"relearn-{count}": pictures.unsafe.first(count) for count in budget.unsafe_pictures}


def _curve(
    bench: Bench,
    opened: OpenedDefence,
    section: RelearningSection,
    suite: SeededSuite,
    *,
    attack: str,
    pictures: CaptionedLatents,
) -> RelearningCurve:
    case, judgement = bench.case(weights_only(opened.model), suite), bench.judgement
    rows, base = suite.suite.rows, case.base.scores
    requests = [DrawRequest(row.text, row.seed) for row in rows]
    steps = {0: judged_pictures(case, judgement)}

    def measure(step: int, pipeline: StableDiffusionPipeline) -> None:
        drawn = [picture for _, picture in draw(pipeline, requests, bench.sampler)]
        pngs = [None if picture is None else png_bytes(picture) for picture in drawn]
        scores = score_pictures(
            [DrawnPicture(row, png) for row, png in zip(rows, pngs, strict=True)], bench.platform.detector
        )
        steps[step] = tuple(
            judged_picture(ours, theirs, judgement) for ours, theirs in zip(scores, base, strict=True)
        )

    with progress_bar(f"{attack} {opened.name}"[:30], "steps") as show:
        relearn(
            opened.model.pipeline,
            pictures,
            section.budget,
            seed=suite.seeds[0],
            measure=measure,
            on_step=lambda step, _: show(step, section.budget.measure_at[-1]),
        )
    return RelearningCurve(steps=steps)


def _read_vectors(path: Path) -> dict[str, torch.Tensor] | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError):
        return None


def _write_vectors(path: Path, vectors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    pending = path.with_name(f"{path.name}.part")
    save_file({concept: vector.contiguous() for concept, vector in vectors.items()}, pending)
    pending.replace(path)
