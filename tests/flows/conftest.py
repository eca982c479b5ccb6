"""A real Prefect server, a real object store and a real MLflow database for very short runs on the miniature."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from safegen.bootstrap import stack_root
from safegen.config import RunConfig, load_config
from safegen.pipeline.summary import Summary
from safegen.stack import control
from tests.short_run import Workbench, make_workbench


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """Where all runs of a module work: what one module releases is no other module's champion."""
    return make_workbench(tmp_path_factory.mktemp("flows"))


@pytest.fixture(scope="module")
def object_server(workbench: Workbench) -> Iterator[RunConfig]:
    """The main workspace's object store, up for the whole module as after `safegen stack up`; the run's config."""
    config = load_config(workbench.write_run())
    control.start(stack_root(config), ("s3",))
    yield config
    control.stop(stack_root(config))


@pytest.fixture(scope="module", autouse=True)
def prefect_server(workbench: Workbench) -> Iterator[None]:
    """Prefect's own test server; results lie where the command line keeps those of the main workspace."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DO_NOT_TRACK", "1")
        environment.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings
        from prefect.testing.utilities import prefect_test_harness

        storage = workbench.folder / "main" / "prefect" / "storage"
        with (
            prefect_test_harness(server_startup_timeout=120),
            temporary_settings({PREFECT_LOCAL_STORAGE_PATH: storage}),
        ):
            yield


@pytest.fixture(scope="module")
def first_run(object_server: RunConfig, prefect_server: None) -> Summary:
    """The first run of the main workspace, blocked by its policy; later tests begin where it ended."""
    from flows.protect import protect

    return protect(object_server)
