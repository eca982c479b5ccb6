"""A Prefect server with the project's deployments, workers as processes, and somebody who is notified."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import psutil
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun, TaskRun

from safegen.stack.processes import ProcessIdentity, start_process, stop_process

ROOT = Path(__file__).parents[1]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Worker:
    """A `prefect worker start` process."""

    process: ProcessIdentity

    def vanish(self) -> None:
        """End it and all that it started at once, as when its machine loses power."""
        family = psutil.Process(self.process.pid)
        for one in [family, *family.children(recursive=True)]:
            os.kill(one.pid, signal.SIGKILL)


@dataclass(frozen=True)
class DeployedRuns:
    """The runs of a Prefect server."""

    client: SyncPrefectClient
    environment: Mapping[str, str]
    folder: Path

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "safegen"]
        process = start_process(
            command, folder=self.folder, log=self.folder / "worker.log", environment=self.environment
        )
        try:
            yield Worker(process)
        finally:
            stop_process(process)

    def start(self, deployment: str, **parameters: object) -> FlowRun:
        found = self.client.read_deployment_by_name(deployment)
        return self.client.create_flow_run_from_deployment(found.id, parameters=parameters)

    def read(self, run: FlowRun) -> FlowRun:
        return self.client.read_flow_run(run.id)

    def runs_of(self, deployment: str) -> list[FlowRun]:
        """Return a deployment's runs that began, oldest first."""
        found = self.client.read_deployment_by_name(deployment)
        began = [run for run in self._runs(found.id) if run.start_time is not None]
        return sorted(began, key=lambda run: str(run.start_time))

    def pause(self, deployment: str) -> None:
        """Let a schedule fire no more, and drop what waits for its turn."""
        found = self.client.read_deployment_by_name(deployment)
        self.client.pause_deployment(found.id)
        for run in self._runs(found.id):
            if run.state is not None and run.state.is_scheduled():
                self.client.delete_flow_run(run.id)

    def _runs(self, deployment_id: UUID) -> list[FlowRun]:
        chosen = FlowRunFilter.model_validate({"deployment_id": {"any_": [deployment_id]}})
        return self.client.read_flow_runs(flow_run_filter=chosen)

    def tasks(self, run_id: UUID) -> dict[str, TaskRun]:
        """Return a run's stages by name."""
        found = self.client.read_task_runs(
            flow_run_filter=FlowRunFilter.model_validate({"id": {"any_": [run_id]}}),
            task_run_filter=TaskRunFilter(),
        )
        return {task.name.rsplit("-", 1)[0]: task for task in sorted(found, key=lambda one: str(one.created))}

    def state_of(self, run: FlowRun) -> str:
        state = self.read(run).state
        return str(state.name) if state else ""

    def wait_for(self, what: str, look: Callable[[], Found], timeout_s: float = 480) -> Found:
        """Look once a second until there is something."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if found := look():
                return found
            time.sleep(1)
        log = self.folder / "worker.log"
        return pytest.fail(
            f"no {what} within {timeout_s:g} s: {log.read_text()[-3000:] if log.exists() else ''}"
        )

    def wait_for_state(self, run: FlowRun, *names: str, timeout_s: float = 480) -> FlowRun:
        return self.wait_for(
            f"{names} of run {run.name} (it is {self.state_of(run)})",
            lambda: (now := self.read(run)) and now.state is not None and now.state.name in names and now,
            timeout_s,
        )


@contextmanager
def connected(api_url: str, folder: Path, **more: str) -> Iterator[DeployedRuns]:
    """Talk to a server; workers keep their own files in the folder, and get more variables."""
    environment = {
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": str(folder / "prefect-home"),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        **more,
    }
    Path(environment["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    settings = {PREFECT_API_URL: api_url, PREFECT_API_AUTH_STRING: more.get("PREFECT_API_AUTH_STRING")}
    with temporary_settings(settings), get_client(sync_client=True) as client:
        yield DeployedRuns(client, environment, folder)


def safegen(*words: str, folder: Path, **variables: str) -> str:
    """Run the command in a folder, and return what it printed."""
    command = [sys.executable, "-m", "safegen", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def every_minute(path: Path, deployment: str) -> Path:
    """Write the project's deployments to a file, one of them with a schedule that fires each minute."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    [chosen] = [one for one in content["deployments"] if one["name"] == deployment]
    chosen["schedules"] = [{"cron": "* * * * *", "timezone": "UTC", "slug": "minute"}]
    path.write_text(yaml.safe_dump(content))
    return path


@dataclass(frozen=True)
class Operators:
    """Who is notified."""

    url: str
    heard: list[dict[str, str]] = field(default_factory=list)

    def heard_of(self, *words: str) -> bool:
        return any(all(word in str(message) for word in words) for message in self.heard)


@contextmanager
def operators() -> Iterator[Operators]:
    """Run a webhook that keeps what is posted to it."""
    heard: list[dict[str, str]] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Operators(f"http://127.0.0.1:{server.server_port}/hook", heard)
        server.shutdown()
