"""What the stack remembers between commands: which processes it started, and on which ports."""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safegen.errors import StorageError
from safegen.stack.identities import write_private
from safegen.stack.processes import ProcessIdentity

ServiceName = Literal["s3", "mlflow", "prefect"]


class Claim(ProcessIdentity):
    """A process that uses a service, and wants it to go on until it says otherwise or dies.

    Attributes:
        token: Tells several claims of one process apart.
    """

    token: str


class StackState(BaseModel):
    """The stack's memory.

    Attributes:
        schema_version: Version of this format.
        ports: Each service's ports, the public one first; kept when it stops, so that addresses stay the
            same.
        processes: The processes started and not stopped by us; they may have died since.
        kept: Services that somebody wants up until he stops them, whoever else uses them.
        claims: Who uses each service; some may have died since.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    ports: dict[ServiceName, tuple[int, ...]] = Field(default_factory=dict[ServiceName, tuple[int, ...]])
    processes: dict[ServiceName, ProcessIdentity] = Field(default_factory=dict[ServiceName, ProcessIdentity])

    kept: tuple[ServiceName, ...] = ()
    claims: dict[ServiceName, tuple[Claim, ...]] = Field(default_factory=dict[ServiceName, tuple[Claim, ...]])

    def with_service(
        self, name: ServiceName, ports: tuple[int, ...], process: ProcessIdentity | None
    ) -> StackState:
        """Return this state with one service running as `process`, or stopped (None)."""
        ports_now: dict[ServiceName, tuple[int, ...]] = {**self.ports, name: ports}
        processes = dict(self.processes)
        if process is None:
            processes.pop(name, None)
        else:
            processes[name] = process
        return self.model_copy(update={"ports": ports_now, "processes": processes})

    def with_claims(self, name: ServiceName, claims: tuple[Claim, ...]) -> StackState:
        """Return this state with these users of a service."""
        return self.model_copy(update={"claims": {**self.claims, name: claims}})

    def with_kept(self, name: ServiceName, *, kept: bool) -> StackState:
        """Return this state with a service that is kept up, or is not."""
        others = tuple(one for one in self.kept if one != name)
        return self.model_copy(update={"kept": (*others, name) if kept else others})


def read_state(root: Path) -> StackState:
    """Return what is remembered under `root`; nothing at all before the first start.

    Raises:
        StorageError: The file is damaged.
    """
    path = root / "stack.json"
    try:
        return StackState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return StackState()
    except (OSError, ValidationError) as error:
        raise StorageError(
            f"cannot read the stack's state in {path}; end its processes by hand if any run, then delete the file"
        ) from error


def write_state(root: Path, state: StackState) -> None:
    """Remember `state` under `root`.

    Raises:
        StorageError: It cannot be written.
    """
    write_private(root / "stack.json", state.model_dump_json(indent=2).encode())


@contextmanager
def exclusive(root: Path) -> Generator[None]:
    """Let one command at a time change the stack under `root`, which is created when needed.

    Raises:
        StorageError: The folder cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (root / "stack.lock").open("a")
    except OSError as error:
        raise StorageError(
            f"cannot use {root} for the local stack: {error.strerror or error}; give a folder that can be written"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
        yield
