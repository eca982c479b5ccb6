"""What a run would meet: its inputs, its workspace, the services, the object store."""

from __future__ import annotations

import shutil
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping

from safegen.adapters.conditional_writes import prove_conditional_writes
from safegen.bootstrap import open_platform, stack_root
from safegen.config import RunConfig
from safegen.doctor.finding import Finding
from safegen.errors import SafegenError
from safegen.pipeline.preflight import check_inputs
from safegen.stack import control
from safegen.stack.identities import PROBE_PREFIX

_HEALTH_TIMEOUT_S = 5.0
_LOW_SPACE_BYTES = 2 << 30
_HEALTH_PATHS = {"mlflow": "/health", "prefect": "/api/health", "s3": "/"}


def examine_inputs(config: RunConfig) -> Finding:
    """Look at base checkpoint, policy and prompt suites as a run does before it begins."""
    try:
        check_inputs(config)
    except SafegenError as error:
        return Finding("inputs", "failed", str(error))
    return Finding("inputs", "ok", f"base {config.base.source}, policy {config.gate.policy}")


def examine_workspace(config: RunConfig) -> Finding:
    """Write a file where the workspace is, or would be made."""
    workspace = config.workspace.absolute()
    place = next(folder for folder in (workspace, *workspace.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"safegen")
        free = shutil.disk_usage(place).free
    except OSError as error:
        problem = f"{place} is not writable ({error.strerror or error}); set workspace to a folder of yours"
        return Finding("workspace", "failed", problem)
    text = f"{workspace} is writable, {free / 2**30:.1f} GiB free"
    return Finding("workspace", "note" if free < _LOW_SPACE_BYTES else "ok", text)


def examine_services(config: RunConfig) -> Iterator[Finding]:
    """Ask the services that `safegen stack up` started for this workspace."""
    try:
        services = control.status(stack_root(config))
    except SafegenError as error:
        yield Finding("stack", "failed", str(error))
        return
    for one in services:
        if one.url:
            yield _answers(f"stack {one.name}", f"{one.url}{_HEALTH_PATHS[one.name]}")
        elif one.state == "died":
            yield Finding(f"stack {one.name}", "failed", f"died; see {one.log}, then: safegen stack up")
        else:
            yield Finding(f"stack {one.name}", "ok", "stopped; a run brings up what it needs")


def examine_servers(config: RunConfig, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Ask the MLflow server of the configuration and the Prefect server of the environment, where there are any."""
    if config.tracking.uri.startswith(("http://", "https://")):
        yield _answers("mlflow server", f"{config.tracking.uri.rstrip('/')}/health")
    if api := environment.get("PREFECT_API_URL"):
        yield _answers("prefect server", f"{api.rstrip('/')}/health")


def examine_store(config: RunConfig) -> Iterator[Finding]:
    """Open the object store and try to overwrite what must not be overwritten."""
    try:
        with open_platform(config) as platform:
            for store in (platform.trainer_store, platform.promoter_store):
                prove_conditional_writes(store, f"{PROBE_PREFIX}/{uuid.uuid4().hex}")
            yield Finding("object store", "ok", f"{platform.trainer_store.uri} is writable and writes once")
            if platform.note:
                yield Finding("object store", "note", platform.note)
    except SafegenError as error:
        yield Finding("object store", "failed", str(error))
    except OSError as error:
        yield Finding("object store", "failed", f"the workspace cannot be used ({error})")


def _answers(name: str, url: str) -> Finding:
    try:
        with urllib.request.urlopen(url, timeout=_HEALTH_TIMEOUT_S):  # noqa: S310  (the user's own address)
            return Finding(name, "ok", url)
    except urllib.error.HTTPError as error:
        if error.code == 403:  # an object store that asks who is there is up
            return Finding(name, "ok", url)
        problem = f"answered {error.code}"
    except (OSError, ValueError) as error:
        problem = f"does not answer ({getattr(error, 'reason', error)})"
    return Finding(name, "failed", f"{url} {problem}; start it, or correct its address")
