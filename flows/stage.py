"""Runs stages as Prefect tasks whose results are kept by content digest."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Literal, TypeVar, cast

from prefect import task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.runtime import deployment
from prefect.tasks import Task
from pydantic import BaseModel

from safegen.bootstrap import Platform, code_version
from safegen.domain.digests import digest_json
from safegen.errors import DataError, RegistryError, StorageError
from safegen.pipeline.outcomes import Decided, Edited, Evaluated, Outcome, Page, Promoted, StageName
from safegen.pipeline.summary import PartialSummary, StageRecord, Summary, summarise

Result = TypeVar("Result", bound=Outcome)

GPU_TAG = "safegen-gpu"
"""Tag of the tasks that compute on a GPU: `safegen deploy` limits how many of them run at a time."""

_GPU_STAGES: frozenset[StageName] = frozenset({"validate", "triplets", "edit", "evaluate"})
# These begin where they were stopped, or write under keys made of content, so that a repetition does no harm. Not
# among them: gate and report, which take a second, and promote, whose writers must look again before they repeat.
_REPEATABLE_STAGES: frozenset[StageName] = frozenset({"ingest", "validate", "triplets", "edit", "evaluate"})
_RETRIES, _RETRY_DELAY_S = 2, 30


@dataclass(frozen=True)
class StageEvent:
    """Something that a person who waits for a stage wants to know.

    Attributes:
        name: The stage.
        state: What became of it.
        seconds: Since it started.
    """

    name: StageName
    state: Literal["started", "reused", "done", "failed"]
    seconds: float = 0.0


StageObserver = Callable[[StageEvent], None]
_observer: ContextVar[StageObserver | None] = ContextVar("stage_observer", default=None)


@contextmanager
def observed_by(observer: StageObserver) -> Iterator[None]:
    """Tell `observer` of the stages of flows that run inside the block.

    It is no parameter of the flow, because a deployment's parameters are JSON.
    """
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


class Stages:
    """Runs the stages of one flow run and remembers which were re-used.

    A task's cache key is the digest of what its result depends on, the stage's name, the workspace and the version of
    safegen's code. Prefect's own policies do not do: the default one holds the run's id, INPUTS a path's text.
    """

    def __init__(self, platform: Platform, *, not_made_here: Collection[StageName] = ()) -> None:
        """Begin.

        Args:
            platform: What the stages work with.
            not_made_here: Stages of which only a kept result will do; `run` refuses to make one.
        """
        self.platform = platform
        self._not_made_here = frozenset(not_made_here)
        self._records: list[StageRecord] = []
        self._notes = [platform.note] if platform.note else []

    def run(
        self,
        name: StageName,
        kind: type[Result],
        depends_on: Mapping[str, object],
        work: Callable[[], Result],
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

        Raises:
            DataError: The stage is not to be made here, and no result is kept.
        """
        if name in self._not_made_here:
            work = _refusal(name)
        # Results name files and runs of their workspace, so another workspace with the same inputs makes its own.
        key = digest_json(
            {
                "stage": name,
                "code": code_version(),
                "workspace": str(self.platform.workspace),
                "inputs": _plain(depends_on),
            }
        )
        with self._recorded(name) as record:
            stage = _task(name, key)
            state: Any = stage(work, return_state=True)
            result = kind.model_validate(state.result())
            record.reused = state.name == "Cached"
            if record.reused and not result.is_present(self.platform.promoter_store):
                record.reused = False
                state = stage.with_options(refresh_cache=True)(work, return_state=True)
                result = kind.model_validate(state.result())
        return result

    def repeat(self, name: StageName, work: Callable[[], Promoted]) -> Promoted:
        """Run a stage that is cheap and changes nothing when it is repeated."""
        with self._recorded(name) as record:
            released = task(name=name, persist_result=False)(work)()
            record.reused = not released.changed
        return released

    def note(self, text: str) -> None:
        """Add what a user should know to the summary."""
        self._notes.append(text)

    def summary(
        self, edited: Edited, evaluated: Evaluated, decided: Decided, page: Page, released: Promoted | None
    ) -> Summary:
        """Return what the run did."""
        return summarise(
            self.platform,
            tuple(self._records),
            edited=edited,
            evaluated=evaluated,
            decided=decided,
            page=page,
            released=released,
            note="; ".join(self._notes),
        )

    def partial_summary(self, result: Outcome) -> PartialSummary:
        """Return what a run did that ends with the last stage so far."""
        return PartialSummary(
            stage=self._records[-1].name,
            result=result.model_dump(mode="json"),
            stages=tuple(self._records),
            note=self.platform.note,
        )

    @contextmanager
    def _recorded(self, name: StageName) -> Iterator[_Recording]:
        """Note how long the block takes and tell the observer."""
        started, recording = time.monotonic(), _Recording()
        _tell(StageEvent(name, "started"))
        try:
            yield recording
        except BaseException:
            _tell(StageEvent(name, "failed", time.monotonic() - started))
            raise
        seconds = round(time.monotonic() - started, 3)
        self._records.append(StageRecord(name=name, reused=recording.reused, seconds=seconds))
        _tell(StageEvent(name, "reused" if recording.reused else "done", seconds))


@dataclass
class _Recording:
    """What is learnt about a stage while it runs."""

    reused: bool = False


def _tell(event: StageEvent) -> None:
    if observer := _observer.get():
        observer(event)


def _task(name: StageName, key: str) -> Task[..., Any]:
    def key_of(context: TaskRunContext, parameters: dict[str, Any]) -> str:
        del context, parameters
        return f"safegen-{name}-{key}"

    # A person at the command line hears of a failure at once, and repeats it when its cause is mended.
    unattended = deployment.id is not None
    kept = task(
        name=name,
        cache_key_fn=key_of,
        persist_result=True,
        result_serializer="json",
        log_prints=False,
        tags=[GPU_TAG] if name in _GPU_STAGES else None,
        retries=_RETRIES if unattended and name in _REPEATABLE_STAGES else 0,
        retry_delay_seconds=_RETRY_DELAY_S,
        retry_condition_fn=_may_pass,
    )
    return kept(_call)


def _may_pass(stage: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Say whether a failure may be over in a minute: only where a service did not answer."""
    del stage, run
    return isinstance(state.result(raise_on_failure=False), StorageError | RegistryError)


def _refusal(name: StageName) -> Callable[[], Any]:
    def refuse() -> Any:
        raise DataError(
            f"nothing is evaluated for this configuration: no {name} result is kept that fits its inputs, its settings "
            "and this version of safegen; run safegen evaluate with the same --config first"
        )

    return refuse


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
