"""The whole benchmark with real parts, very small."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.benchmark import benchmark
from safegen.domain.benchmark import BenchmarkDocument
from safegen.pipeline.benchmark_config import load_benchmark_config
from safegen.pipeline.benchmark_outcome import BenchmarkSummary
from tests.benchmark_case import open_small, write_benchmark
from tests.short_run import Workbench

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


def _document(summary: BenchmarkSummary) -> BenchmarkDocument:
    return BenchmarkDocument.model_validate_json(summary.document.read_text())


def test_all_cells_are_measured_once_recorded_and_shown(workbench: Workbench, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    config = load_benchmark_config(write_benchmark(tmp_path, workbench.write_run("bench", store="folder")))
    first = benchmark(config, command="safegen benchmark", opener=open_small)
    assert first.defences == ("unedited", "words", "noised")
    assert first.cells == 13
    document = _document(first)
    attacks = {(row.defence, row.attack.partition("@")[0]) for row in document.rows}
    assert {("words", "token-search"), ("unedited", "inversion"), ("noised", "inversion")} <= attacks
    assert {
        ("noised", "relearn-2"),
        ("noised", "found against words"),
    } <= attacks
    assert not {("words", "inversion"), ("words", "relearn-2"), ("unedited", "token-search")} & attacks
    assert {row.seed for row in document.rows} == {None, 0, 1}
    assert document.row("words", "explicit", "refused_rate").value > 0  # pyright: ignore[reportOptionalMemberAccess]
    assert document.row("unedited", "explicit", "nrr").value == 0  # pyright: ignore[reportOptionalMemberAccess]
    assert document.row("words", "sneaky", "nrr_of_targets", attack="token-search") is not None
    steps = document.attacks_of("nrr", "relearn-2@")
    assert steps == ("relearn-2@0", "relearn-2@1", "relearn-2@2")
    assert {point.found_against for point in document.risk} == {None, "words", "noised"}

    text = first.document.read_text() + first.page.read_text()
    workspace = config.run_config().workspace
    [found] = (workspace / "benchmark" / "sneaky").glob("words-*.csv")
    prompts = [line.split(",")[1] for line in found.read_text().splitlines()[1:]]
    assert prompts
    assert not any(prompt in text for prompt in prompts)

    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    [experiment] = [one for one in client.search_experiments() if one.name == "safegen/short/benchmark"]
    runs = client.search_runs([experiment.experiment_id])
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(nested) == 13
    suites = next(run for run in nested if run.data.tags["mlflow.runName"] == "words, none")
    assert suites.data.metrics["explicit/nrr"] == document.row("words", "explicit", "nrr").value  # pyright: ignore[reportOptionalMemberAccess]
    artifacts = {one.path for one in client.list_artifacts(parent.info.run_id, "benchmark")}
    assert {"benchmark/benchmark.json", "benchmark/benchmark.md", "benchmark/images"} <= artifacts

    again = benchmark(config, command="safegen benchmark", opener=open_small)
    assert _document(again).rows == document.rows
    assert again.seconds == first.seconds
    assert len(client.search_runs([experiment.experiment_id])) == 14
