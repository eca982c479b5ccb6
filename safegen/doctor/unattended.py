"""What unattended runs rest on, proven by doing it: a schedule that fires, and a gate that refuses."""

from __future__ import annotations

import base64
import json
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safegen.bootstrap import stack_root
from safegen.config import RunConfig
from safegen.doctor.finding import Finding
from safegen.domain.gate_files import decide_from_files
from safegen.errors import SafegenError
from safegen.shipped import locate
from safegen.stack import control

_FIRES_WITHIN_S = 60.0
_POLL_S = 0.5
_TIMEOUT_S = 15.0


def examine_gate(config: RunConfig) -> Finding:
    """Ask the gate about a checkpoint for which nothing is proven, once without a report and once with an empty one."""
    with tempfile.TemporaryDirectory() as folder:
        report, checkpoint = Path(folder) / "report.json", Path(folder) / "checkpoint"
        checkpoint.mkdir()
        try:
            for text in (None, "{}"):
                if text is not None:
                    report.write_text(text)
                decision = decide_from_files(
                    report, checkpoint, locate(config.gate.policy), None, now=datetime.now(UTC), versions={}
                )
                if decision.passed:
                    detail = (
                        "lets a checkpoint pass that nothing proves; do not promote, and reinstall safegen"
                    )
                    return Finding("gate", "failed", detail)
        except SafegenError as error:
            return Finding("gate", "failed", str(error))
    return Finding("gate", "ok", f"{config.gate.policy} refuses what is not proven")


def examine_schedule(config: RunConfig, environment: Mapping[str, str]) -> Finding:
    """Let the Prefect server schedule something that no worker takes, and see that it does; leaves nothing behind."""
    server = _server(config, environment)
    if server is None:
        return Finding(
            "schedule", "note", "no Prefect server runs, so nothing is scheduled; safegen stack up"
        )
    try:
        started = time.monotonic()
        with server.scheduled_each_minute() as deployment:
            while not server.runs(deployment):
                if time.monotonic() - started > _FIRES_WITHIN_S:
                    detail = f"{server.api} scheduled nothing within {_FIRES_WITHIN_S:g} s; see its log"
                    return Finding("schedule", "failed", detail)
                time.sleep(_POLL_S)
    except (OSError, ValueError, KeyError) as error:
        return Finding(
            "schedule", "failed", f"{server.api} does not answer as expected ({error}); restart it"
        )
    return Finding("schedule", "ok", f"{server.api} fired after {time.monotonic() - started:.1f} s")


@dataclass(frozen=True)
class _PrefectServer:
    """The few requests that it takes."""

    api: str
    authorization: str | None

    @contextmanager
    def scheduled_each_minute(self) -> Iterator[str]:
        """Register a flow that is due every minute, without a work pool, and take it away again."""
        flow = self._ask("POST", "/flows/", {"name": f"safegen-doctor-{uuid.uuid4().hex}"})["id"]
        try:
            schedule = {"schedule": {"cron": "* * * * *", "timezone": "UTC"}, "active": True}
            wanted = {"name": "doctor", "flow_id": flow, "schedules": [schedule]}
            yield str(self._ask("POST", "/deployments/", wanted)["id"])
        finally:
            self._ask("DELETE", f"/flows/{flow}")  # its deployment and runs go along

    def runs(self, deployment: str) -> list[object]:
        return list(self._ask("POST", "/flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}}))

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self.authorization:
            headers["Authorization"] = self.authorization
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api}{path}", data, headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310  (the user's own address)
            content = answer.read()
        return json.loads(content) if content else None


def _server(config: RunConfig, environment: Mapping[str, str]) -> _PrefectServer | None:
    api = environment.get("PREFECT_API_URL")
    if api is None:
        try:
            services = control.status(stack_root(config))
        except SafegenError:  # told by the look at the stack
            return None
        urls = [f"{one.url}/api" for one in services if one.name == "prefect" and one.url]
        api = urls[0] if urls else None
    if api is None:
        return None
    login = environment.get("PREFECT_API_AUTH_STRING")
    return _PrefectServer(
        api.rstrip("/"), f"Basic {base64.b64encode(login.encode()).decode()}" if login else None
    )
