"""Resumes a run that waits for an approval."""

from __future__ import annotations

from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import resume_flow_run

from safegen.errors import ConfigError


def resume_with_approval(run_id: str, signed_approval: str) -> None:
    """Hand a signed approval to a run that waits for one; whether it counts, the run decides.

    Raises:
        ConfigError: There is no such run on the server, or it does not wait.
    """
    try:
        run = UUID(run_id)
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run).state
    except httpx.HTTPError as error:
        raise ConfigError(f"Prefect's server does not answer ({error}); see PREFECT_API_URL") from error
    except (ValueError, ObjectNotFound) as error:
        raise ConfigError(f"there is no run {run_id} on this Prefect server; see PREFECT_API_URL") from error
    if state is None or not state.is_paused():
        raise ConfigError(
            f"run {run_id} is {state.name if state else 'new'}, and does not wait for an approval"
        )
    resume_flow_run(run, run_input={"signed_approval": signed_approval})
