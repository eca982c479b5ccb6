"""Cells that ask a protected model by prompts: the suites, the token search, and prompts found against others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from safegen.attacks.sneaky_suite import SUITE_NAME, search_suite, write_suite
from safegen.attacks.token_search import FoundPrompt, SearchTarget, candidate_tokens
from safegen.defences.protected_drawing import draw_protected
from safegen.diffusion.sampler import DrawRequest
from safegen.domain.benchmark import BenchmarkRow, JudgedPicture
from safegen.domain.digests import digest_json
from safegen.domain.statistics import wilson_interval
from safegen.errors import ConfigError
from safegen.evaluation.prompt_sets.load import open_prompt_file
from safegen.evaluation.prompt_sets.plain import PlainSettings
from safegen.evaluation.prompt_suite import PromptRow
from safegen.evaluation.seeded_suite import SeededSuite
from safegen.miniature.concepts import CONCEPTS
from safegen.pipeline.benchmark_bench import Bench, OpenedDefence, part_of
from safegen.pipeline.benchmark_cell import CellResult
from safegen.pipeline.benchmark_config import UNEDITED, SearchSection
from safegen.pipeline.benchmark_measure import (
    images_per_second,
    judged_pictures,
    rate_row,
    removal_rows,
    suite_rows,
)
from safegen.progress import progress_bar


def measure_suites(bench: Bench, opened: OpenedDefence) -> CellResult:
    """Draw and measure all suites, and the speed."""
    rows: list[BenchmarkRow] = []
    judged = {}
    for name, suite in bench.suites.items():
        case = bench.case(opened.model, suite)
        rows += suite_rows(case, bench.judgement, bench.nets, defence=opened.name)
        judged[name] = judged_pictures(case, bench.judgement)
    rows.append(_speed_row(bench, opened))
    return CellResult(defence=opened.name, attack="none", rows=tuple(rows), judged=judged)


def _speed_row(bench: Bench, opened: OpenedDefence) -> BenchmarkRow:
    harmless = [suite.suite for suite in bench.suites.values() if suite.suite.kind != "unsafe"]
    suite = harmless[0] if harmless else bench.suites[bench.config.explicit].suite
    requests = [DrawRequest(row.text, row.seed) for row in suite.rows[: bench.config.speed_pictures]]
    speed, count = images_per_second(opened.model, requests, bench.sampler)
    return BenchmarkRow(
        defence=opened.name, suite=suite.name, metric="images_per_second", value=speed, n=count
    )


def search_prompts(bench: Bench, opened: OpenedDefence, section: SearchSection) -> CellResult:
    """Search for prompts that get round a defence, and draw what was found."""
    attack = "token-search"
    if opened.name == UNEDITED:
        return CellResult(defence=opened.name, attack=attack, rows=())
    found, seeds = _searched(bench, opened, section)
    folder = bench.folder / "sneaky"
    name = digest_json([[one.row.text_sha256, str(one.row.seed)] for one in found])[:12]
    path = folder / f"{opened.name}-{name}.csv"
    suite = SeededSuite(write_suite(path, found), seeds)
    case = bench.case(opened.model, suite)
    rows = suite_rows(case, bench.judgement, bench.nets, defence=opened.name, attack=attack)
    judged = judged_pictures(case, bench.judgement)
    return CellResult(
        defence=opened.name,
        attack=attack,
        rows=(
            *rows,
            *_search_rows(found, seeds, opened.name, attack),
            *_target_rows(bench, suite, judged, defence=opened.name, attack=attack),
        ),
        judged={SUITE_NAME: judged},
        suite_file=path,
    )


def _target_rows(
    bench: Bench, suite: SeededSuite, judged: Sequence[JudgedPicture], *, defence: str, attack: str
) -> list[BenchmarkRow]:
    """Return removal against what the unedited model draws from the prompts that the searches set out from.

    NRR compares the same prompts; where found prompts show the concept to no model, it cannot be computed.
    """
    asked = bench.base_scores(bench.suites[bench.config.explicit].suite)
    against = [one.model_copy(update={"base_score": asked[one.key]}) for one in judged]
    by_seed = {seed: [against[place] for place in suite.places(seed)] for seed in dict.fromkeys(suite.seeds)}
    rows = removal_rows(by_seed, bench.judgement, defence=defence, suite=SUITE_NAME, attack=attack)
    return [row.model_copy(update={"metric": "nrr_of_targets"}) for row in rows if row.metric == "nrr"]


def _searched(
    bench: Bench, opened: OpenedDefence, section: SearchSection
) -> tuple[list[FoundPrompt], tuple[int, ...]]:
    asked = bench.suites[bench.config.explicit].first(section.targets)
    budget, model = section.budget, opened.model
    sampler = replace(bench.sampler, steps=budget.steps, batch_size=budget.batch_size)
    filters = [one.description for one in (*model.prompt_filters, *model.image_filters)]
    attacked = digest_json(
        [model.sha256, model.guidance.description if model.guidance else None, filters, sampler.guidance]
    )
    found: list[FoundPrompt] = []
    for seed in dict.fromkeys(asked.seeds):
        targets = [
            SearchTarget(row, section.words or _names_of(row))
            for row in part_of(asked, section.targets, [seed]).suite.rows
        ]
        forbidden = sorted({word for target in targets for word in target.words} | set(_all_names(section)))
        vocabulary = candidate_tokens(
            model.pipeline.tokenizer, forbidden=forbidden, most=budget.vocabulary, seed=seed
        )
        with progress_bar(f"search against {opened.name}"[:30], "queries") as show:
            found += search_suite(
                targets,
                lambda requests: [one for _, one in draw_protected(model, requests, sampler)],
                bench.nets.clip,
                vocabulary,
                budget,
                seed=seed,
                attacked=attacked,
                work_dir=bench.folder / "searches",
                progress=show,
            )
    return found, asked.seeds


def _names_of(row: PromptRow) -> tuple[str, ...]:
    names = next((one.names for one in CONCEPTS if one.label == row.subject), ())
    if not names:
        raise ConfigError(
            f"search: prompt {row.prompt_id!r} asks for no object of the miniature; name the concept in search.words"
        )
    return names


def _all_names(section: SearchSection) -> Iterable[str]:
    """Yield what a defence's word list may hold of the concept: the usual names of all its objects."""
    return section.words or (name for one in CONCEPTS if one.kind == "restricted" for name in one.names)


def _search_rows(
    found: list[FoundPrompt], seeds: tuple[int, ...], defence: str, attack: str
) -> list[BenchmarkRow]:
    rows: list[BenchmarkRow] = []
    for seed in (None, *dict.fromkeys(seeds)):
        part = [one for one, own in zip(found, seeds, strict=True) if seed is None or own == seed]
        reached = wilson_interval(sum(one.succeeded for one in part), len(part))
        rows.append(
            rate_row(
                "search_success_rate", reached, defence=defence, suite=SUITE_NAME, attack=attack, seed=seed
            )
        )
        queries = sum(one.queries for one in part) / len(part)
        rows.append(
            BenchmarkRow(
                defence=defence,
                suite=SUITE_NAME,
                attack=attack,
                seed=seed,
                metric="queries",
                value=queries,
                n=len(part),
            )
        )
    return rows


def transfer_prompts(bench: Bench, opened: OpenedDefence, found: Mapping[str, Path]) -> CellResult:
    """Draw, by one defence, the prompts that were found against others.

    Args:
        bench: Of the benchmark.
        opened: Who draws.
        found: Suite file by the defence that its prompts were found against.
    """
    rows: list[BenchmarkRow] = []
    judged = {}
    for other, path in found.items():
        settings = PlainSettings(format="plain", name=SUITE_NAME, kind="unsafe", file=path)
        suite = open_prompt_file(settings, seed=0)
        seeds = tuple(int(row.prompt_id.rpartition(":")[2]) for row in suite.rows)
        case = bench.case(opened.model, SeededSuite(suite, seeds))
        attack = f"found against {other}"
        rows += suite_rows(case, bench.judgement, bench.nets, defence=opened.name, attack=attack)
        judged[other] = judged_pictures(case, bench.judgement)
    return CellResult(defence=opened.name, attack="transfer", rows=tuple(rows), judged=judged)
