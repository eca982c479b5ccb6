"""The benchmark: every defence under every attack, cell by cell, and the document that comes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, assert_never

import numpy as np

from safegen.attacks.sneaky_suite import SUITE_NAME
from safegen.bootstrap import Platform, code_version
from safegen.domain.benchmark import BenchmarkDocument, BenchmarkRow, JudgedPicture, PairedTest
from safegen.domain.digests import digest_json
from safegen.domain.paired_tests import holm_adjusted, sign_flip_p
from safegen.domain.removal import totals_by_prompt
from safegen.domain.report import Plain, SuiteKind
from safegen.pipeline.benchmark_bench import Bench, OpenDefence, OpenedDefence
from safegen.pipeline.benchmark_cell import CellResult, Stopwatch, kept, read_kept
from safegen.pipeline.benchmark_config import BenchmarkConfig
from safegen.pipeline.benchmark_prompts import measure_suites, search_prompts, transfer_prompts
from safegen.pipeline.benchmark_risk import risk_points
from safegen.pipeline.benchmark_weights import invert_weights, relearn_weights
from safegen.ports import TrackedRun

Attack = Literal["none", "token-search", "inversion", "relearning", "transfer"]
Measure = Literal["unsafe", "kept"]
ATTACKS: Final[tuple[Attack, ...]] = ("none", "token-search", "inversion", "relearning")
_NOT_IN_METRIC_NAMES = re.compile(r"[^\w./-]+")


@dataclass
class BenchmarkSession:
    """A benchmark under way.

    Attributes:
        bench: What its cells share.
        run: Where it is recorded; each cell is a run nested in it.
        command: What reproduces it.
        cells: Results so far.
    """

    bench: Bench
    run: TrackedRun
    command: str
    cells: list[CellResult] = field(default_factory=list)

    def defences(self) -> Iterator[OpenedDefence]:
        """Yield the defences in the order in which they are measured, so that one model is held at a time."""
        return (OpenedDefence(name, self.bench) for name in self.bench.config.order)

    def measure(self, opened: OpenedDefence, attack: Attack) -> CellResult:
        """Measure one cell and record it; what an earlier run kept is read.

        Raises:
            SafegenError: The defence cannot be made, or something cannot be drawn, scored or measured.
        """
        path = self._path(opened.name, attack)
        watch = Stopwatch()
        result = kept(path, CellResult, lambda: self._recorded(opened, attack, watch))
        self.cells.append(result)
        return result

    def is_kept(self, name: str, attack: Attack) -> bool:
        """Say whether an earlier run has kept a cell."""
        return read_kept(self._path(name, attack), CellResult) is not None

    def document(self) -> BenchmarkDocument:
        """Return the document of all cells."""
        config = self.bench.config
        return BenchmarkDocument(
            created_utc=datetime.now(UTC),
            command=self.command,
            tested=config.tested,
            suites=self._kinds(),
            explicit=config.explicit,
            text_dependent=tuple(dict.fromkeys(cell.defence for cell in self.cells if cell.text_dependent)),
            how=_how(self.bench),
            rows=tuple(row for cell in self.cells for row in cell.rows),
            tests=tuple(paired_tests(self.cells, config.tested, self._measures())),
            risk=tuple(risk_points(self.bench, self.cells)),
            seconds=sum(cell.seconds for cell in self.cells),
        )

    def _measures(self) -> dict[str, Measure]:
        """Return what is tested on each suite."""
        return {name: "unsafe" if kind == "unsafe" else "kept" for name, kind in self._kinds().items()}

    def _kinds(self) -> dict[str, SuiteKind]:
        kinds: dict[str, SuiteKind] = {name: suite.suite.kind for name, suite in self.bench.suites.items()}
        if self.bench.config.search:
            kinds[SUITE_NAME] = "unsafe"
        return kinds

    def _recorded(self, opened: OpenedDefence, attack: Attack, watch: Stopwatch) -> CellResult:
        with self.bench.platform.tracker.start_run(
            experiment=experiment_of(self.bench.platform),
            run_name=f"{opened.name}, {attack}",
            tags={"stage": "benchmark", "defence": opened.name, "attack": attack},
            description=f"Defence `{opened.name}` under attack `{attack}`.",
            parent_run_id=self.run.id,
        ) as run:
            result = self._measured(opened, attack)
            for row in result.rows:
                _log_row(run, row)
            found = {
                "run_id": run.id,
                "seconds": watch.seconds,
                "text_dependent": opened.defence.text_dependent,
            }
            return result.model_copy(update=found)

    def _measured(self, opened: OpenedDefence, attack: Attack) -> CellResult:
        bench, config = self.bench, self.bench.config
        empty = CellResult(defence=opened.name, attack=attack, rows=())
        match attack:
            case "none":
                return measure_suites(bench, opened)
            case "token-search":
                return search_prompts(bench, opened, config.search) if config.search else empty
            case "inversion":
                return invert_weights(bench, opened, config.inversion) if config.inversion else empty
            case "relearning":
                return relearn_weights(bench, opened, config.relearning) if config.relearning else empty
            case "transfer":
                return transfer_prompts(bench, opened, self._found_against_others(opened.name))
            case _:
                assert_never(attack)

    def _found_against_others(self, name: str) -> dict[str, Path]:
        files = {cell.defence: cell.suite_file for cell in self.cells if cell.attack == "token-search"}
        return {other: path for other, path in files.items() if path is not None and other != name}

    def _path(self, name: str, attack: Attack) -> Path:
        config, found = self.bench.config, self._found_against_others(name)
        sections: Mapping[Attack, object] = {
            "none": config.speed_pictures,
            "token-search": config.search and config.search.model_dump(mode="json"),
            "inversion": config.inversion and config.inversion.model_dump(mode="json"),
            "relearning": config.relearning and config.relearning.model_dump(mode="json"),
            "transfer": {other: path.name for other, path in found.items()},
        }
        depends_on = [sections[attack], list(config.seeds), self.bench.sources]
        return self.bench.cell_path(name, attack, depends_on)


@contextmanager
def open_session(
    platform: Platform, config: BenchmarkConfig, open_defence: OpenDefence, *, command: str
) -> Iterator[BenchmarkSession]:
    """Begin a benchmark, or go on with the run of one that was stopped.

    Args:
        platform: Of the run that the benchmark names.
        config: Of the benchmark.
        open_defence: Opens defences by name.
        command: What reproduces it.
    """
    bench = Bench(platform, config, open_defence)
    settings = config.model_dump(mode="json", exclude={"out"})
    note = bench.folder / "runs" / digest_json([settings, code_version(), bench.base_sha256])[:16]
    with platform.tracker.start_run(
        experiment=experiment_of(platform),
        run_name=f"benchmark of {len(config.order)} defences, {len(config.seeds)} seeds",
        tags={"stage": "benchmark", "tested": config.tested, "base_digest": bench.base_sha256},
        description=f"Defences, suites and attacks on `{platform.config.model}`; a nested run for each cell.",
        resume_run_id=note.read_text() if note.is_file() else None,
    ) as run:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(run.id)
        run.log_params({"defences": ", ".join(config.order), "seeds": str(list(config.seeds))})
        yield BenchmarkSession(bench, run, command)


def experiment_of(platform: Platform) -> str:
    """Return the experiment of a model's benchmarks."""
    return f"safegen/{platform.config.model}/benchmark"


def paired_tests(
    cells: Sequence[CellResult], tested: str, measures: Mapping[str, Measure]
) -> list[PairedTest]:
    """Test every defence against one, suite by suite.

    Args:
        cells: Whose judged pictures are compared, those of the suites and of the token search.
        tested: The defence that the others are tested against.
        measures: What is counted on each suite.
    """
    suites = {(cell.defence, name): pictures for cell in cells for name, pictures in _compared(cell)}
    made = [
        test
        for (defence, suite), theirs in suites.items()
        if defence != tested and (tested, suite) in suites
        for test in _tests_of(defence, suite, measures[suite], suites[tested, suite], theirs)
    ]
    corrected = holm_adjusted([one.p for one in made])
    return [one.model_copy(update={"p_holm": p}) for one, p in zip(made, corrected, strict=True)]


def _compared(cell: CellResult) -> Iterator[tuple[str, tuple[JudgedPicture, ...]]]:
    if cell.attack in ("none", "token-search"):
        yield from cell.judged.items()


def _tests_of(
    defence: str,
    suite: str,
    measure: Measure,
    ours: Sequence[JudgedPicture],
    theirs: Sequence[JudgedPicture],
) -> Iterator[PairedTest]:
    others = {one.key: getattr(one, measure) for one in theirs}
    pairs = [(one.prompt, getattr(one, measure), others.get(one.key)) for one in ours]
    known = [(prompt, our, their) for prompt, our, their in pairs if our is not None and their is not None]
    if not known:
        return
    prompts = [prompt for prompt, _, _ in known]
    tested_counts, counts = (
        totals_by_prompt(np.array([pair[side] for pair in known], dtype=np.bool_), prompts) for side in (1, 2)
    )
    p = sign_flip_p(tested_counts, counts)
    yield PairedTest(
        defence=defence,
        suite=suite,
        measure=measure,
        tested_count=int(tested_counts.sum()),
        count=int(counts.sum()),
        n=len(known),
        prompts=len(counts),
        p=p,
        p_holm=p,
    )


def _how(bench: Bench) -> dict[str, Plain]:
    config, sampler, detector = bench.config, bench.sampler, bench.platform.detector.identity
    judged = bench.judgement
    return {
        "model": bench.platform.config.model,
        "base_sha256": bench.base_sha256,
        "code_version": code_version(),
        "seeds": ", ".join(map(str, config.seeds)),
        "prompts_per_seed": ", ".join(
            f"{name} {len(suite.places(config.seeds[0]))}" for name, suite in bench.suites.items()
        ),
        "sampler": f"DDIM, {sampler.steps} steps, guidance {sampler.guidance:g}, {sampler.precision}",
        "detector": f"{detector.name} {detector.version}, threshold {judged.threshold:g}",
        "unsafe_threshold": judged.threshold,
        "detector_sha256": detector.model_sha256,
        "clip": bench.nets.clip.name,
        "clip_sha256": bench.nets.clip.sha256,
        **_budgets(config),
    }


def _budgets(config: BenchmarkConfig) -> dict[str, Plain]:
    found: dict[str, Plain] = {}
    if search := config.search:
        found["token_search"] = (
            f"{search.targets} targets a seed, at most {search.budget.queries} queries of {search.budget.steps} steps, "
            f"{search.budget.tokens} tokens"
        )
    if inversion := config.inversion:
        found["inversion"] = (
            f"{inversion.budget.steps} steps of {inversion.budget.batch_size}, "
            f"{inversion.pictures} pictures a concept and seed"
        )
    if relearning := config.relearning:
        found["relearning"] = (
            f"all U-Net weights, rate {relearning.budget.learning_rate:g}, batches of "
            f"{relearning.budget.batch_size}, {relearning.prompts} prompts a seed"
        )
    return found


def _log_row(run: TrackedRun, row: BenchmarkRow) -> None:
    """Record what is over all seeds; a curve's steps are the metric's steps."""
    if row.seed is not None or row.value is None:
        return
    attack, _, step = row.attack.partition("@")
    group = row.suite if attack in ATTACKS else f"{row.suite}-{attack}"
    name = _NOT_IN_METRIC_NAMES.sub("-", f"{group}/{row.metric}")
    ends = {"": row.value, "_low": row.low, "_high": row.high}
    run.log_metrics(
        {f"{name}{end}": number for end, number in ends.items() if number is not None}, int(step or 0)
    )
