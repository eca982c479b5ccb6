"""Runs stages as Prefect tasks whose results are kept by content digest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar, cast

from prefect import task
from prefect.context import TaskRunContext
from prefect.tasks import Task
from pydantic import BaseModel

from safegen.bootstrap import Platform, code_version
from safegen.domain.digests import digest_json
from safegen.pipeline.outcomes import Decided, Edited, Evaluated, Outcome, Promoted, StageName
from safegen.pipeline.summary import StageRecord, Summary, summarise

Result = TypeVar("Result", bound=Outcome)


class Stages:
    """Runs the stages of one flow run and remembers which were re-used.

    A task's cache key is the digest of what its result depends on, the stage's name and the version of safegen's
    code. Prefect's own policies do not do: the default one holds the run's id, and INPUTS hashes a path's text.
    """

    def __init__(self, platform: Platform) -> None:
        """Begin.

        Args:
            platform: What the stages work with.
        """
        self.platform = platform
        self._records: list[StageRecord] = []

    def run(
        self, name: StageName, kind: type[Result], depends_on: Mapping[str, object], work: Callable[[], Result]
    ) -> Result:
        """Run a stage, or take its kept result if nothing that it depends on has changed.

        A kept result whose files have been deleted is made again.

        Args:
            name: The stage.
            kind: Class of its result.
            depends_on: Digests and settings; models, frozen dataclasses and plain values.
            work: The stage's one call.

        Returns:
            The result.
        """
        key = digest_json({"stage": name, "code": code_version(), "inputs": _plain(depends_on)})
        started = time.monotonic()
        stage = _task(name, key)
        state: Any = stage(work, return_state=True)
        result = kind.model_validate(state.result())
        reused = state.name == "Cached"
        if reused and not result.is_present():
            state = stage.with_options(refresh_cache=True)(work, return_state=True)
            result, reused = kind.model_validate(state.result()), False
        self._record(name, started, reused=reused)
        return result

    def repeat(self, name: StageName, work: Callable[[], Promoted]) -> Promoted:
        """Run a stage that is cheap and changes nothing when it is repeated."""
        started = time.monotonic()
        released = task(name=name, persist_result=False)(work)()
        self._record(name, started, reused=not released.changed)
        return released

    def summary(
        self, edited: Edited, evaluated: Evaluated, decided: Decided, released: Promoted | None
    ) -> Summary:
        """Return what the run did."""
        return summarise(self.platform, tuple(self._records), edited, evaluated, decided, released)

    def _record(self, name: StageName, started: float, *, reused: bool) -> None:
        seconds = round(time.monotonic() - started, 3)
        self._records.append(StageRecord(name=name, reused=reused, seconds=seconds))


def _task(name: str, key: str) -> Task[..., Any]:
    def key_of(context: TaskRunContext, parameters: dict[str, Any]) -> str:
        del context, parameters
        return f"safegen-{name}-{key}"

    return task(
        _call, name=name, cache_key_fn=key_of, persist_result=True, result_serializer="json", log_prints=False
    )


def _call(work: Callable[[], Outcome]) -> dict[str, Any]:
    return work().model_dump(mode="json")


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in cast("list[object]", value)]
    return value
