"""Waits for a person's signed approval, without holding a worker, a GPU or a slot meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count

from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.runtime import deployment

from flows.presentation import show_approval_wanted
from safegen.bootstrap import Platform
from safegen.errors import DataError
from safegen.pipeline.approve import approval_subject, verify_approval
from safegen.pipeline.outcomes import Decided, Edited

WAIT_S = 7 * 24 * 3600
"""For how long an approval is waited for; then the run fails, and nothing is released."""

_given: ContextVar[str | None] = ContextVar("given_approval", default=None)


class ApprovalInput(RunInput):
    """What a person enters to resume a run.

    Attributes:
        signed_approval: What `safegen approve` printed.
    """

    signed_approval: str


@contextmanager
def approved_by(signed_approval: str | None) -> Iterator[None]:
    """Hand an approval to the flows that run inside the block."""
    token = _given.set(signed_approval)
    try:
        yield
    finally:
        _given.reset(token)


def obtain_approval(platform: Platform, edited: Edited, decided: Decided) -> str | None:
    """Return an approval that holds, or None where nobody has given one.

    A deployed run is suspended: its process ends, and whoever resumes it starts it again from its kept results. Anybody
    who reaches the server can resume it; one who has no approver's signature only makes it wait anew.

    Raises:
        DataError: The approval that was handed to this run does not hold.
    """
    if deployment.id is None:
        given = _given.get()
        if given is not None:
            verify_approval(platform, edited, decided, given)
        return given
    show_approval_wanted(decided, approval_subject(platform, edited, decided))
    for attempt in count():
        answer = suspend_flow_run(
            wait_for_input=ApprovalInput, timeout=WAIT_S, key=f"approval-{decided.decision.stem}-{attempt}"
        )
        try:
            verify_approval(platform, edited, decided, answer.signed_approval)
        except DataError as error:
            get_run_logger().warning("this is no approval, so the run waits again: %s", error)
        else:
            return answer.signed_approval
    raise AssertionError("count() does not end")
