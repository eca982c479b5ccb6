"""The benchmark: every defence on every suite and under every attack, a task for each.

Finished cells are kept by the cells themselves (`safegen.pipeline.benchmark_cell`), under a digest of all that decides
their numbers, so a run that was stopped goes on after its last cell.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from safegen.bootstrap import open_platform
from safegen.pipeline.benchmark import ATTACKS, Attack, BenchmarkSession, open_session
from safegen.pipeline.benchmark_bench import OpenedDefence
from safegen.pipeline.benchmark_config import BenchmarkConfig
from safegen.pipeline.benchmark_defences import open_defence
from safegen.pipeline.benchmark_outcome import BenchmarkSummary, publish


@flow(name="benchmark", validate_parameters=False)
def benchmark(config: BenchmarkConfig, *, command: str, opener: Any = None) -> BenchmarkSummary:
    """Measure all cells and write the document, the page and the figures.

    Args:
        config: The benchmark.
        command: What reproduces it, for the page.
        opener: Opens defences by name, an `OpenDefence`; None for those of safegen. (Prefect writes a JSON schema of
            parameters, which a function has none of.)

    Returns:
        What `safegen benchmark --json` prints.
    """
    with (
        open_platform(config.run_config()) as platform,
        open_session(platform, config, opener or open_defence, command=command) as session,
    ):
        opened = None
        for opened in session.defences():
            for attack in ATTACKS:
                _measure(session, opened, attack)
        if opened is not None:  # the tested defence is the last
            _measure(session, opened, "transfer")
        return publish(session)


def _measure(session: BenchmarkSession, opened: OpenedDefence, attack: Attack) -> None:
    cell = task(name=f"{opened.name}, {attack}", cache_policy=NO_CACHE, persist_result=False)

    @cell
    def measured() -> float:
        return session.measure(opened, attack).seconds

    measured()
