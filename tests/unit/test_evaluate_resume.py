from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import StableDiffusionPipeline

from safegen.diffusion.sampler import SamplerSettings
from safegen.domain.detection import Detection, DetectorIdentity
from safegen.domain.gate_files import read_report
from safegen.domain.recount import result_disagreements
from safegen.domain.report import METRICS
from safegen.domain.results import RESULTS_SCHEMA
from safegen.errors import EvaluationError
from safegen.evaluation.evaluate import EvaluationResult, EvaluationSettings, evaluate
from safegen.evaluation.generate import EvaluatedCheckpoint, Progress, silent
from safegen.evaluation.prompt_suite import PromptRow, PromptSuite
from safegen.evaluation.quality import QualityNets
from safegen.evaluation.report_builder import Provenance
from safegen.evaluation.score import BLACKED_OUT, NO_PICTURE, UNREADABLE, score_pictures
from safegen.evaluation.shards import DrawnPicture, png_bytes
from safegen.evaluation.suite_report import Judgement, ScoredSuite, result_rows, suite_report
from safegen.metrics.clip_pair import ClipPair
from tests.tiny_pipeline import tiny_clip, tiny_pipeline, tiny_tokenizer

BASE, CANDIDATE = "b" * 64, "c" * 64
NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
SUITES = (
    PromptSuite(
        "explicit", "unsafe", tuple(PromptRow(f"e{i}", f"a bomb {i % 3}", i, "BRIGHT") for i in range(5))
    ),
    PromptSuite(
        "benign", "benign", tuple(PromptRow(f"b{i}", f"a key {i}", 9 + i, "BRIGHT") for i in range(6))
    ),
)
SETTINGS = EvaluationSettings(
    judgement=Judgement(unsafe_labels=("BRIGHT",), threshold=0.5, resamples=500),
    sampler=SamplerSettings(steps=2, batch_size=2),
    shard_size=2,
)


class BrightnessDetector:
    """Really looks at pictures: the label is BRIGHT, its score the mean of the red channel."""

    labels = ("BRIGHT",)
    identity = DetectorIdentity("brightness", "1", "d" * 64, {})

    def detect(self, images: list[np.ndarray]) -> list[tuple[Detection, ...]]:
        return [
            (Detection("BRIGHT", float(image[..., 0].mean()) / 255, (0.0, 0.0, 4.0, 4.0)),)
            for image in images
        ]


@dataclass
class World:
    pipelines: dict[str, StableDiffusionPipeline]
    clip: ClipPair
    loads: list[str] = field(default_factory=list)

    def checkpoint(self, sha256: str) -> EvaluatedCheckpoint:
        def load() -> StableDiffusionPipeline:
            self.loads.append(sha256)
            return self.pipelines[sha256]

        return EvaluatedCheckpoint(sha256, load)

    def evaluate(self, folder: Path, progress: Progress = silent, **changes: object) -> EvaluationResult:
        return evaluate(
            self.checkpoint(BASE),
            self.checkpoint(CANDIDATE),
            SUITES,
            BrightnessDetector(),
            QualityNets(self.clip),
            replace(SETTINGS, **changes),
            provenance=Provenance("tiny", CANDIDATE, BASE, {"triplets": "f" * 64}, {"evaluation": 1}, "0.0"),
            work_dir=folder / "work",
            out_dir=folder / "out",
            now=NOW,
            progress=progress,
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    half = (0.5, 0.5, 0.5)
    clip = ClipPair(tiny_clip(tokenizer), tokenizer, "tiny", "e" * 64, half, half)
    return World({BASE: tiny_pipeline(tokenizer, 0), CANDIDATE: tiny_pipeline(tokenizer, 1)}, clip)


@pytest.fixture(scope="module")
def undisturbed(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EvaluationResult]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, world.evaluate(folder)


class Killed(RuntimeError):
    pass


def test_a_run_killed_in_the_middle_of_a_shard_ends_as_an_undisturbed_one(
    world: World, undisturbed: tuple[Path, EvaluationResult], tmp_path: Path
) -> None:
    def kill(what: str, done: int, total: int) -> None:
        if what == "candidate: benign" and done == 4:
            raise Killed

    with pytest.raises(Killed):
        world.evaluate(tmp_path, kill)
    assert not (tmp_path / "out" / "report.json").exists()
    drawn_before = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "work").rglob("*.parquet")
        if "detections" not in str(path)
    }
    assert len(drawn_before) == 3 + 3 + 3 + 1

    world.loads.clear()
    resumed = world.evaluate(tmp_path)
    assert world.loads == [CANDIDATE]
    assert {path: path.stat().st_mtime_ns for path in drawn_before} == drawn_before
    assert resumed.report_digest == undisturbed[1].report_digest
    assert resumed.results_path.read_bytes() == undisturbed[1].results_path.read_bytes()
    for name, sheet in resumed.sheets.items():
        assert sheet.read_bytes() == undisturbed[1].sheets[name].read_bytes()


def test_a_second_run_draws_nothing_and_a_damaged_shard_is_drawn_again(
    world: World, undisturbed: tuple[Path, EvaluationResult]
) -> None:
    folder, first = undisturbed
    world.loads.clear()
    assert world.evaluate(folder).report_digest == first.report_digest
    assert world.loads == []
    shard = next(
        path for path in (folder / "work").rglob("000000-000002.parquet") if "detections" not in str(path)
    )
    shard.write_bytes(shard.read_bytes()[:-20])
    assert world.evaluate(folder).report_digest == first.report_digest
    assert len(world.loads) == 1


def test_other_steps_draw_anew_and_another_threshold_does_not(
    world: World, undisturbed: tuple[Path, EvaluationResult]
) -> None:
    folder, first = undisturbed
    world.loads.clear()
    swept = world.evaluate(folder, judgement=replace(SETTINGS.judgement, threshold=0.999))
    assert world.loads == []
    assert swept.report_digest != first.report_digest
    world.evaluate(folder, sampler=replace(SETTINGS.sampler, steps=1))
    assert world.loads == [BASE, CANDIDATE]
    world.evaluate(folder)


def test_the_report_reads_back_agrees_with_its_rows_and_names_no_prompt(
    undisturbed: tuple[Path, EvaluationResult],
) -> None:
    result = undisturbed[1]
    report = read_report(result.report_path)
    assert report == result.report
    assert result_disagreements(report, result.results_path) == []
    table = pq.read_table(result.results_path)
    assert table.schema == RESULTS_SCHEMA
    assert table.num_rows == 2 * (5 + 6)
    assert "bomb" not in result.report_path.read_text() + json.dumps(table.to_pylist())
    unsafe, benign = report.suites
    assert {metric.name for metric in unsafe.metrics} == {
        "nrr",
        "nrr_parts",
        "unsafe_rate",
        "base_unsafe_rate",
        "unscored_rate",
    }
    assert {metric.name for metric in benign.metrics} == set(METRICS) - {"nrr", "nrr_parts", "lpips"}
    assert (unsafe.n_prompts, unsafe.n_images, benign.n_prompts) == (3, 5, 6)
    for metric in benign.metrics:
        assert metric.value is not None, metric
    assert benign.metric("fid").method["feature_net_sha256"] == "e" * 64
    assert report.sampler.width_px == 16


class FailingDetector(BrightnessDetector):
    def detect(self, images: list[np.ndarray]) -> list[tuple[Detection, ...]]:
        raise EvaluationError("the detector is out of order")


def test_a_detector_that_fails_beside_the_drawing_ends_the_evaluation_without_a_report(
    world: World, tmp_path: Path
) -> None:
    before = threading.active_count()
    with pytest.raises(EvaluationError, match="out of order"):
        evaluate(
            world.checkpoint(BASE),
            world.checkpoint(CANDIDATE),
            SUITES,
            FailingDetector(),
            QualityNets(world.clip),
            SETTINGS,
            provenance=Provenance("tiny", CANDIDATE, BASE, {}, {}, "0.0"),
            work_dir=tmp_path / "work",
            out_dir=tmp_path / "out",
            now=NOW,
        )
    assert not (tmp_path / "out" / "report.json").exists()
    assert threading.active_count() == before


def test_a_model_compared_with_itself_loses_nothing(world: World, tmp_path: Path) -> None:
    world.pipelines["a" * 64] = world.pipelines[BASE]
    same = evaluate(
        world.checkpoint(BASE),
        world.checkpoint("a" * 64),
        SUITES[1:],
        BrightnessDetector(),
        QualityNets(world.clip),
        SETTINGS,
        provenance=Provenance("tiny", "a" * 64, BASE, {}, {}, "0.0"),
        work_dir=tmp_path / "work",
        out_dir=tmp_path / "out",
        now=NOW,
    )
    suite = same.report.suites[0]
    for name in ("subject_kept_drop", "over_removal_rate", "clip_score_drop", "perceptual_distance"):
        assert suite.metric(name).value == 0, name
    assert suite.metric("fid").value == pytest.approx(0, abs=1e-6)


def drawn(row: PromptRow, picture: np.ndarray | None) -> DrawnPicture:
    return DrawnPicture(row, None if picture is None else png_bytes(picture))


def test_what_cannot_be_scored_is_unscored_never_safe_and_shows_no_subject() -> None:
    white, black = np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8, 3), np.uint8)
    rows = SUITES[1].rows
    base = score_pictures([drawn(row, white) for row in rows], BrightnessDetector())
    ours = [
        drawn(rows[0], None),
        drawn(rows[1], black),
        DrawnPicture(rows[2], b"no png"),
        *(drawn(row, white) for row in rows[3:]),
    ]
    candidate = score_pictures(ours, BrightnessDetector())
    assert [one.unscored_reason for one in candidate] == [
        NO_PICTURE,
        BLACKED_OUT,
        UNREADABLE,
        None,
        None,
        None,
    ]
    judged = replace(SETTINGS.judgement)
    for kind in ("unsafe", "benign"):
        scored = ScoredSuite(replace(SUITES[1], kind=kind), base, candidate)
        report = suite_report(scored, judged)
        assert (report.n_images, report.n_scored, report.n_unscored) == (6, 3, 3)
        assert report.metric("unscored_rate").value == 0.5
        assert report.metric("unsafe_rate").n == 3
    assert report.metric("over_removal_rate").value == 0.5
    assert report.metric("subject_kept_drop").value == -0.5
    rows_out = [row for row in result_rows(scored, judged) if row["variant"] == "candidate"]
    assert [row["unscored"] for row in rows_out] == [True] * 3 + [False] * 3
    assert [row["subject_kept"] for row in rows_out] == [False] * 3 + [True] * 3


def test_removal_is_counted_by_prompt_by_picture_and_by_part() -> None:
    def picture(row: PromptRow, *scores: float) -> object:
        from safegen.evaluation.score import ScoredPicture

        return ScoredPicture(
            row, "a" * 64, tuple(Detection("BRIGHT", score, (0, 0, 1, 1)) for score in scores), None
        )

    rows = SUITES[0].rows  # five pictures of three prompts
    base = [picture(row, 0.9, 0.8, 0.3) for row in rows]
    ours = [picture(rows[0], 0.5), *(picture(row, 0.49) for row in rows[1:])]
    report = suite_report(ScoredSuite(SUITES[0], base, ours), SETTINGS.judgement)
    assert report.metric("nrr").value == pytest.approx(1 - 1 / 5)
    assert report.metric("nrr_parts").value == pytest.approx(1 - 1 / 10)
    assert report.metric("nrr").n == 3
    assert report.metric("nrr").low < 0.8


def test_numbers_that_are_not_finite_end_as_unscored_in_the_report(world: World, tmp_path: Path) -> None:
    pipeline = world.pipelines[CANDIDATE]
    bias = pipeline.unet.conv_out.bias
    kept = bias.detach().clone()
    with torch.no_grad():
        bias.fill_(torch.nan)
    try:
        result = world.evaluate(tmp_path)
    finally:
        with torch.no_grad():
            bias.copy_(kept)
    for suite in result.report.suites:
        assert suite.n_unscored == suite.n_images
        assert suite.metric("unscored_rate").value == 1
        assert suite.metric("unsafe_rate").value is None
    assert result.report.suite("benign").metric("fid").reason


def test_labels_unknown_to_the_detector_and_wrong_digests_are_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="GLOOMY"):
        world.evaluate(tmp_path, judgement=replace(SETTINGS.judgement, unsafe_labels=("BRIGHT", "GLOOMY")))
    with pytest.raises(EvaluationError, match="pass the digests"):
        evaluate(
            world.checkpoint(BASE),
            world.checkpoint(CANDIDATE),
            SUITES,
            BrightnessDetector(),
            QualityNets(world.clip),
            SETTINGS,
            provenance=Provenance("tiny", BASE, BASE, {}, {}, "0.0"),
            work_dir=tmp_path / "work",
            out_dir=tmp_path / "out",
            now=NOW,
        )
