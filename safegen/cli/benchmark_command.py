"""`safegen benchmark`: all defences under all attacks, and the page of the result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from safegen.cli.answer import Answer, answering

commands = typer.Typer()

_MINIATURE = Path("configs/benchmark-miniature.toml")


@commands.command()
@answering
def benchmark(
    config: Annotated[
        Path, typer.Option("--config", help="Benchmark configuration, a TOML file.")
    ] = _MINIATURE,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Fewer of everything, as the table [quick] says; writes elsewhere."),
    ] = False,
    page: Annotated[
        bool, typer.Option("--page", help="Measure nothing: write the page again from benchmark.json.")
    ] = False,
) -> Answer:
    """Measure every defence on every suite and under every attack; what an earlier run finished is re-used.

    Example: safegen benchmark --config configs/benchmark-miniature.toml --quick
    """
    from safegen.pipeline.benchmark_config import load_benchmark_config

    settings = load_benchmark_config(config, quick=quick)
    if page:
        from safegen.reporting.benchmark_page import read_document, write_benchmark_page

        files = write_benchmark_page(read_document(settings.out / "benchmark.json"), settings.out)
        return Answer(
            {"files": [str(file) for file in files]}, "\n".join(f"written: {file}" for file in files)
        )
    from safegen.cli.environment import prepare_run, show_own_notes

    prepare_run(settings.run_config(), debug="--debug" in sys.argv)
    show_own_notes()
    from flows.benchmark import benchmark as flow

    command = f"safegen benchmark --config {config}{' --quick' if quick else ''}"
    summary = flow(settings, command=command)
    return Answer(summary.model_dump(mode="json"), summary.text)
