"""Lets automations see at once what happens to scheduled runs."""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.runtime import flow_run

SCHEDULED = "safegen.run.scheduled"


def tell_first_state() -> None:
    """Emit the event of this run's first state, which Prefect's scheduler leaves out.

    Each state's event follows that of the state before it, and the server holds back what follows an event that it has
    not seen, for fifteen minutes. A run that was suspended in that time would count as silent, and nobody would be
    told of a failure. The event of a state has the state's id.
    """
    if flow_run.id is None:
        return
    with get_client(sync_client=True) as client:
        this = client.read_flow_run(flow_run.id)
        if not this.auto_scheduled:  # then the server has emitted it
            return
        first = min(client.read_flow_run_states(this.id), key=lambda state: state.timestamp)
    resource = {"prefect.resource.id": f"prefect.flow-run.{this.id}", "prefect.resource.name": this.name}
    emit_event(event=SCHEDULED, resource=resource, id=first.id)
