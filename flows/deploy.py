"""Prepares a Prefect server for unattended runs; doing it again changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import yaml
from prefect.automations import AutomationCore
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

from flows.automations import NOTIFICATION_BLOCK, crash_of_silent_runs, notification_block, notifications
from flows.stage import GPU_TAG
from safegen.errors import ConfigError

POOL = "safegen"


@dataclass(frozen=True)
class Operations:
    """How runs are to be carried out.

    Attributes:
        gpus: How many tasks may compute on a GPU at a time, over all workers.
        pool_type: "process" runs on the worker's machine, "kubernetes" starts a job.
        base_job_template: JSON file of the pool; None for the type's own.
        notify_url: Webhook that is told of failures, blocks and releases; None for nobody.
        variables: What `prefect.yaml` names as `$…`.
    """

    gpus: int
    pool_type: str
    base_job_template: Path | None
    notify_url: str | None
    variables: Mapping[str, str]


def deploy(file: Path, operations: Operations) -> tuple[str, ...]:
    """Make everything that `file` needs, register its deployments, and look that they are there.

    Args:
        file: A `prefect.yaml`.
        operations: How runs are to be carried out.

    Returns:
        The deployments, as "flow/name".

    Raises:
        ConfigError: The file cannot be read, the server cannot be reached or refuses.
    """
    wanted = _deployments(file)
    try:
        with get_client(sync_client=True) as client:
            _ensure_pool(client, operations)
            client.upsert_global_concurrency_limit_by_name(f"tag:{GPU_TAG}", operations.gpus)
            _ensure_automations(client, operations.notify_url)
            _register(file, operations.variables)
            missing = [name for name in wanted if not _exists(client, name)]
    except (httpx.HTTPError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"cannot deploy {file}: {_one_line(error)}; see that PREFECT_API_URL answers"
        ) from error
    if missing:  # Prefect only warns of what it leaves out
        raise ConfigError(f"Prefect did not register {', '.join(missing)} of {file}; see its output above")
    return wanted


def _deployments(file: Path) -> tuple[str, ...]:
    try:
        listed = yaml.safe_load(file.read_text())["deployments"]
        return tuple(f"{str(one['entrypoint']).rpartition('.')[2]}/{one['name']}" for one in listed)
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} lists no deployments ({_one_line(error)}); give a prefect.yaml") from error


def _ensure_pool(client: SyncPrefectClient, operations: Operations) -> None:
    template = _template(operations.base_job_template)
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        made = WorkPoolCreate(name=POOL, type=operations.pool_type, base_job_template=template or {})
        client.create_work_pool(made)
    else:
        if pool.type != operations.pool_type:
            raise ConfigError(
                f"work pool {POOL} is of type {pool.type}, expected {operations.pool_type}; "
                f"delete it first: prefect work-pool delete {POOL}"
            )
        if template is not None:
            client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=template))


def _template(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        return cast("dict[str, Any]", json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"base job template {path} cannot be read: {_one_line(error)}; give a JSON file"
        ) from error


def _ensure_automations(client: SyncPrefectClient, notify_url: str | None) -> None:
    _ensure_automation(client, crash_of_silent_runs())
    if notify_url is not None:
        block = cast("Any", notification_block(notify_url).save(NOTIFICATION_BLOCK, overwrite=True))
        for automation in notifications(block):
            _ensure_automation(client, automation)


def _ensure_automation(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    found = client.read_automations_by_name(wanted.name)
    if found:
        client.update_automation(found[0].id, wanted)
    else:
        client.create_automation(wanted)


def _register(file: Path, variables: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    ended = subprocess.run(command, env={**os.environ, **variables}, stdout=sys.stderr, check=False)
    if ended.returncode:
        raise ConfigError(
            f"prefect deploy --all ended with {ended.returncode} for {file}; see its output above"
        )


def _exists(client: SyncPrefectClient, name: str) -> bool:
    try:
        client.read_deployment_by_name(name)
    except ObjectNotFound:
        return False
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
