"""Everything that is looked at, cheap looks first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from safegen.config import RunConfig
from safegen.doctor.finding import Finding
from safegen.doctor.installation import (
    examine_libraries,
    examine_licences,
    examine_local_store,
    examine_python,
)
from safegen.doctor.surroundings import (
    examine_inputs,
    examine_servers,
    examine_services,
    examine_store,
    examine_workspace,
)
from safegen.doctor.unattended import examine_gate, examine_schedule


def examine(config: RunConfig, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Look at the installation and at what a run would meet.

    Args:
        config: The run.
        environment: The process's; names the Prefect server.

    Yields:
        What was found; no look hides the next one.
    """
    yield examine_python()
    yield from examine_libraries()
    yield examine_local_store()
    yield from examine_licences()
    yield examine_inputs(config)
    yield examine_workspace(config)
    yield from examine_services(config)
    yield from examine_servers(config, environment)
    yield examine_gate(config)
    yield from examine_store(config)
    yield examine_schedule(config, environment)
