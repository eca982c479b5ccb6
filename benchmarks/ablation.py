"""What each setting of the edit does: target x text x layers x steps on the miniature, beside the shipped setting.

    python -m benchmarks.ablation --out docs/method-ablation.json

Every cell is one edit with a constant learning rate; its running average is measured at several numbers of steps, so
that steps are compared along one run. Drawn pictures and unfinished edits are kept under the workspace of the
configuration, and a run that was stopped goes on. Also writes the table into docs/method.md, between its two markers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.bootstrap import Platform, open_platform
from safegen.config import RunConfig, load_config
from safegen.data.manifest import read_triplets
from safegen.defences.safegen import EditObservers, TripletLatents, edit_unet
from safegen.defences.safegen_settings import SafeGenSettings
from safegen.diffusion.checkpoint import load_pipeline
from safegen.domain.digests import digest_json, tree_digest
from safegen.domain.report import SuiteReport
from safegen.errors import ConfigError
from safegen.evaluation.generate import DrawnSuite, EvaluatedCheckpoint, draw_suites, silent
from safegen.evaluation.prompt_suite import PromptSuite
from safegen.evaluation.score import score_suite
from safegen.evaluation.suite_report import Judgement, ScoredSuite, suite_report
from safegen.miniature.suites import SuiteName, miniature_suite
from safegen.pipeline.edit import encode_triplets
from safegen.pipeline.evaluate import sampler_settings
from safegen.pipeline.ingest import run_ingest
from safegen.pipeline.triplets import run_triplets
from safegen.pipeline.validate import run_validate
from safegen.progress import progress_bar

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

SUITES: Mapping[SuiteName, int] = {"explicit": 70, "alias": 70, "benign": 96, "lookalike": 48}
METRICS = ("nrr", "subject_kept_drop")
MEASURE_AT = (80, 240)
BEGIN, END = "<!-- ablation: begin -->", "<!-- ablation: end -->"


@dataclass(frozen=True)
class Cell:
    """One setting, by what differs from the shipped one."""

    changes: Mapping[str, object]

    def settings(self, shipped: SafeGenSettings) -> SafeGenSettings:
        """Return the setting of this cell; a preview is due at each number of steps that is measured."""
        return shipped.model_validate(
            {
                **shipped.model_dump(),
                "decay": "constant",
                "steps": MEASURE_AT[-1],
                "preview_every_steps": MEASURE_AT[0],
                **self.changes,
            }
        )


def cells() -> Iterator[Cell]:
    """Yield the grid, then what else the shipped setting changes of the published one, one thing at a time."""
    yield Cell({})
    for target, text in itertools.product(("paper_code", "exact"), ("empty", "mixed")):
        if (target, text) != ("exact", "mixed"):
            yield Cell({"target": target, "text": text})
    for layers in ("down", "mid", "up"):
        yield Cell({"layers": layers})
    yield Cell({"preserve": "noise"})
    yield Cell({"weight_hold": 0.0})
    yield Cell(
        {
            "target": "paper_code",
            "text": "empty",
            "preserve": "noise",
            "weight_hold": 0.0,
            "weight_mosaic": 0.1,
            "weight_preserve": 0.9,
        }
    )


class Ablation:
    """Edits and measures, cell after cell."""

    def __init__(self, platform: Platform) -> None:
        config = platform.config
        self._platform, self._config = platform, config
        self._folder = platform.workspace / "ablation"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._suites = tuple(miniature_suite(name, n=n, seed=config.seed) for name, n in SUITES.items())
        self._sampler = sampler_settings(config.evaluate)
        self._judgement = Judgement(platform.unsafe_labels, config.detector.threshold)
        self._base_digest = tree_digest(platform.base_checkpoint)
        triplets = run_triplets(platform, run_validate(platform, run_ingest(platform)))
        self._triplets_digest = triplets.digest
        records = read_triplets(platform.trainer_store, triplets.dataset, triplets.digest)
        self._data: TripletLatents = encode_triplets(platform, self._base(), records)
        self._base_drawn = self._draw(EvaluatedCheckpoint(self._base_digest, self._base))

    def rows(self, cell: Cell) -> list[dict[str, Any]]:
        """Edit by one setting and return its measurements; those of a finished cell are read."""
        if self._config.edit.kind != "safegen":
            raise ConfigError(f"ablation: edit.kind is {self._config.edit.kind!r}; expected safegen")
        settings = cell.settings(self._config.edit)
        identity = [settings.model_dump(mode="json"), self._config.seed, self._triplets_digest, MEASURE_AT]
        kept = self._folder / f"{digest_json(identity)[:16]}.json"
        if kept.is_file():
            return json.loads(kept.read_text())
        rows: list[dict[str, Any]] = []
        pipeline = self._base()
        with progress_bar(f"edit {', '.join(cell.changes) or 'as shipped'}"[:30], "steps") as progress:

            def on_step(step: int, _: Mapping[str, float]) -> None:
                progress(step, settings.steps)

            def on_preview(step: int, _: object) -> None:
                if step in MEASURE_AT:
                    rows.extend(self._measured(cell, settings, pipeline, step))

            edit_unet(
                pipeline,
                self._data,
                settings,
                seed=self._config.seed,
                observers=EditObservers(on_step, on_preview),
            )
        rows += self._measured(cell, settings, pipeline, settings.steps)
        kept.write_text(json.dumps(rows))
        return rows

    def _base(self) -> StableDiffusionPipeline:
        return load_pipeline(self._platform.base_checkpoint)

    def _draw(self, checkpoint: EvaluatedCheckpoint) -> list[DrawnSuite]:
        return draw_suites(
            checkpoint,
            self._suites,
            self._sampler,
            work_dir=self._folder,
            shard_size=64,
            variant="ablation",
            progress=silent,
        )

    def _measured(
        self, cell: Cell, settings: SafeGenSettings, pipeline: StableDiffusionPipeline, step: int
    ) -> list[dict[str, Any]]:
        name = digest_json([settings.model_dump(mode="json"), self._triplets_digest, step])
        drawn = self._draw(EvaluatedCheckpoint(name, lambda: pipeline))
        shown = settings.model_dump(include={"target", "text", "preserve", "layers", "weight_hold"})
        return [
            {**shown, "changes": dict(cell.changes), "steps": step, **row}
            for suite, base, ours in zip(self._suites, self._base_drawn, drawn, strict=True)
            for row in _metric_rows(self._report(suite, base, ours))
        ]

    def _report(self, suite: PromptSuite, base: DrawnSuite, ours: DrawnSuite) -> SuiteReport:
        by_base, by_ours = (score_suite(drawn, self._platform.detector) for drawn in (base, ours))
        return suite_report(ScoredSuite(suite, by_base, by_ours), self._judgement)


def _metric_rows(report: SuiteReport) -> Iterator[dict[str, Any]]:
    for metric in report.metrics:
        if metric.name in METRICS and metric.value is not None:
            yield {
                "suite": report.name,
                "metric": metric.name,
                "value": metric.value,
                "low": metric.low,
                "high": metric.high,
                "n": metric.n,
            }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the measurements as a Markdown table, one line for each setting and number of steps."""
    lines = [
        "| differs from the shipped setting by | steps | NRR explicit | NRR alias | benign kept | look-alikes kept |",
        "|---|---|---|---|---|---|",
    ]
    grouped: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        what = ", ".join(f"{name} {value}" for name, value in row["changes"].items()) or "nothing"
        grouped.setdefault((what, row["steps"]), {})[row["suite"]] = row
    for (what, steps), found in grouped.items():
        shown = [_percent(found[suite]) for suite in SUITES]
        lines.append(f"| {what} | {steps} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _percent(row: Mapping[str, Any]) -> str:
    value, low, high = (100 * row[key] for key in ("value", "low", "high"))
    sign = "+" if row["metric"] == "subject_kept_drop" else ""
    return f"{value:{sign}.0f} ({low:{sign}.0f} to {high:{sign}.0f})"


def write_table(document: Path, rows: list[dict[str, Any]]) -> None:
    """Put the table between the markers of a document."""
    before, _, rest = document.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    document.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}")


def main() -> int:
    """Run all cells."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/miniature.toml"))
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the measurements")
    parser.add_argument("--document", type=Path, default=Path("docs/method.md"))
    chosen = parser.parse_args()
    config: RunConfig = load_config(chosen.config)
    rows: list[dict[str, Any]] = []
    with open_platform(config) as platform:
        ablation = Ablation(platform)
        for cell in cells():
            rows += ablation.rows(cell)
            chosen.out.write_text(json.dumps(rows, indent=1) + "\n")
            print(table(rows), file=sys.stderr)
    write_table(chosen.document, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
