"""MLflow servers on loopback for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from safegen.adapters.guard_settings import ALIASES, PUBLIC_KEYS
from safegen.adapters.mlflow_session import MlflowSession
from safegen.adapters.signing_keys import PemKey, create_key_pair, read_private_key


@dataclass(frozen=True)
class Guarded:
    """A guarded server, and the key of whoever may promote."""

    uri: str
    private_key: Path
    session: MlflowSession
    artifacts: Path

    @property
    def key(self) -> PemKey:
        return read_private_key(self.private_key)

    @property
    def client(self):
        return self.session.client

    def call(self, method: str, path: str, body: object = None, api: str = "api") -> requests.Response:
        url = f"{self.uri}/{api}/2.0/mlflow/{path}"
        return requests.request(method, url, json=body, timeout=30)


@contextmanager
def guarded_server(folder: Path) -> Iterator[Guarded]:
    """Run a server that guards the aliases champion and Live."""
    pair = create_key_pair(folder / "keys")
    settings = {PUBLIC_KEYS: str(pair.public), ALIASES: "champion, Live"}
    with mlflow_server(folder, ("--app-name", "safegen"), settings) as uri:
        yield Guarded(uri, pair.private, MlflowSession(uri, max_retries=0), folder / "artifacts")


@contextmanager
def mlflow_server(
    folder: Path, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run one on a free port with its database and artifacts in a folder, and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", f"{folder}/artifacts", *options]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **settings, **(environment or {})},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}", process, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _wait_until_healthy(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")
