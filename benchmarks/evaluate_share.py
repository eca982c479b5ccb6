"""How much of an evaluation's wall time is drawing: detectors and metrics run beside it."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.results import Comparison, record
from safegen.bootstrap import miniature_checkpoint, open_detector, open_quality_nets, restricted_labels
from safegen.config import DetectorSection, load_config
from safegen.diffusion.checkpoint import load_pipeline
from safegen.evaluation.evaluate import EvaluationSettings, evaluate
from safegen.evaluation.generate import EvaluatedCheckpoint, draw_suites, silent
from safegen.evaluation.report_builder import Provenance
from safegen.evaluation.suite_report import Judgement
from safegen.pipeline.evaluate import sampler_settings
from safegen.pipeline.suites import open_suites

BASE, CANDIDATE = "b" * 64, "c" * 64


def main() -> None:
    config = load_config(Path("configs/miniature.toml"))
    suites = open_suites(config)
    pictures = 2 * sum(len(suite.rows) for suite in suites)
    sampler = sampler_settings(config.evaluate)
    pipeline = load_pipeline(miniature_checkpoint())
    detector = open_detector(DetectorSection(kind="miniature", threads=1))
    nets = open_quality_nets(config.evaluate, Path("unused"))
    base, candidate = (EvaluatedCheckpoint(digest, lambda: pipeline) for digest in (BASE, CANDIDATE))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for checkpoint in (base, candidate):
            draw_suites(
                checkpoint,
                tuple(suites),
                sampler,
                work_dir=Path(folder) / "drawn",
                shard_size=config.evaluate.shard_size,
                variant="base",
                progress=silent,
            )
        drawing_s = time.perf_counter() - start
        start = time.perf_counter()
        evaluate(
            base,
            candidate,
            suites,
            detector,
            nets,
            EvaluationSettings(
                judgement=Judgement(restricted_labels("miniature"), 0.5),
                sampler=sampler,
                shard_size=config.evaluate.shard_size,
                unsafe_pictures="shown",
            ),
            provenance=Provenance("miniature", CANDIDATE, BASE, {}, {}, "0"),
            work_dir=Path(folder) / "work",
            out_dir=Path(folder) / "out",
            now=datetime.now(UTC),
        )
        whole_s = time.perf_counter() - start
    record(
        "evaluate_share",
        Comparison(drawing_s, whole_s, "s", pictures),
        compared=f"The evaluation of `configs/miniature.toml` ({pictures} pictures): the time that drawing alone takes "
        "over that of the whole, from drawing to report and contact sheets.",
        bar=">= 0.85",
    )


if __name__ == "__main__":
    main()
