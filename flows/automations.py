"""What Prefect's server does by itself: ends runs that fell silent, and tells people what they must know."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.automations import AutomationCore, ChangeFlowRunState, EventTrigger, Posture, SendNotification
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes
from prefect.events.schemas.events import ResourceSpecification
from prefect.types import SecretDict

from flows.deployed import CANDIDATE_BLOCKED, RELEASE_PROMOTED

NOTIFICATION_BLOCK = "safegen-operators"
SILENCE_S = 90.0
"""How long a run may be silent; its processes send a heartbeat every 30 s (`prefect.yaml`)."""

_HEARTBEAT = "prefect.flow-run.heartbeat"
_NO_MORE_HEARTBEATS = (
    "Completed",
    "Promoted",
    "Blocked",
    "Failed",
    "Crashed",
    "Cancelled",
    "Suspended",
    "Paused",
)
_OUR_RUNS = ResourceSpecification({"prefect.resource.id": "prefect.tag.safegen"})
_SUBJECT = "safegen: {{ event.event }} {{ event.resource.name }}"
_BODY = "{{ event.event }} of {{ event.resource.name }} at {{ event.occurred }}\n{{ event.payload }}"


def crash_of_silent_runs(silence_s: float = SILENCE_S) -> AutomationCore:
    """Mark a run Crashed whose process was killed: Prefect itself would let it be "Running" for ever.

    Its concurrency slot is given back with that, and the next run goes on from what it left.

    Args:
        silence_s: From which silence on.
    """
    crash: ActionTypes = ChangeFlowRunState(
        name="Crashed",
        force=False,
        state=StateType.CRASHED,
        message=f"no heartbeat for {silence_s:g} s: its process was killed or its machine is gone",
    )
    return AutomationCore(
        name="safegen: run without a heartbeat",
        description=f"Marks a run Crashed that has sent no heartbeat for {silence_s:g} s.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *(f"prefect.flow-run.{state}" for state in _NO_MORE_HEARTBEATS)},
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=_OUR_RUNS,
            for_each={"prefect.resource.id"},
            threshold=1,
            within=timedelta(seconds=silence_s),
        ),
        actions=[crash],
    )


def notifications(block_id: UUID) -> tuple[AutomationCore, ...]:
    """Tell of runs that failed, crashed or wait for an approval, and of candidates blocked and releases promoted.

    Args:
        block_id: The block that knows where to.
    """
    runs = EventTrigger(
        posture=Posture.Reactive,
        expect={f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut", "Suspended")},
        match_related=_OUR_RUNS,
        for_each={"prefect.resource.id"},
        threshold=1,
        within=timedelta(0),
    )
    models = EventTrigger(
        posture=Posture.Reactive,
        expect={CANDIDATE_BLOCKED, RELEASE_PROMOTED},
        for_each={"prefect.resource.id"},
        threshold=1,
        within=timedelta(0),
    )
    action: ActionTypes = SendNotification(block_document_id=block_id, subject=_SUBJECT, body=_BODY)
    return (
        AutomationCore(name="safegen: tell of runs", trigger=runs, actions=[action]),
        AutomationCore(name="safegen: tell of models", trigger=models, actions=[action]),
    )


def notification_block(url: str) -> CustomWebhookNotificationBlock:
    """Return the block that posts `{"subject", "text"}` to an address, which is kept as a secret.

    Args:
        url: Of a chat's or pager's webhook.
    """
    return CustomWebhookNotificationBlock(
        name=NOTIFICATION_BLOCK,
        url="{{address}}",
        json_data={"subject": "{{subject}}", "text": "{{body}}"},
        headers=None,
        cookies=None,
        secrets=SecretDict({"address": url}),
    )
