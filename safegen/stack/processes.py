"""Start background processes that outlive their starter, and know them again by pid and start time."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from safegen.errors import StorageError

_INHERITED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
_PORTS = range(20_000, 32_000)
# Ignore the terminal's hang-up, keep files private, then become the command, under the same pid.
_LAUNCHER = 'trap "" HUP; umask 077; cd "$0" && exec "$@"'


class ProcessIdentity(BaseModel):
    """A process as it was started: a pid alone may belong to somebody else by now.

    Attributes:
        pid: Its id, which is also that of its process group.
        started: When the kernel says it started, seconds since the epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    started: float


def start_process(
    command: Sequence[str], *, folder: Path, log: Path, environment: Mapping[str, str]
) -> ProcessIdentity:
    """Start a command in a session of its own, with its output appended to `log`.

    It inherits of the environment only what programs need to run: a stray AWS key or MLflow address must not
    change what a local service does.

    Args:
        command: Program and arguments.
        folder: Its working directory.
        log: File for its output.
        environment: Variables in addition to those inherited.

    Raises:
        StorageError: It could not be started.
    """
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        pid = os.posix_spawn(
            "/bin/sh",
            ["/bin/sh", "-c", _LAUNCHER, str(folder), *command],
            inherited | dict(environment),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        return ProcessIdentity(pid=pid, started=psutil.Process(pid).create_time())
    except (OSError, psutil.Error) as error:
        raise StorageError(f"cannot start {command[0]}: {error}; see {log}") from error


def own_identity() -> ProcessIdentity:
    """Return this very process."""
    return ProcessIdentity(pid=os.getpid(), started=psutil.Process().create_time())


def is_running(process: ProcessIdentity) -> bool:
    """Return whether exactly this process still runs; a zombie, or another one under its pid, does not count."""
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(process.pid, os.WNOHANG)  # when it is our own child, let it go
    try:
        found = psutil.Process(process.pid)
        return abs(found.create_time() - process.started) < 1.0 and not _has_ended(found)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True  # it exists, and belongs to somebody else: not ours to judge


def stop_process(process: ProcessIdentity, *, grace_s: float = 15.0) -> None:
    """Ask a process and its children to end, wait, and kill what is left; nothing happens if it is gone.

    Args:
        process: Which.
        grace_s: How long it may take to end by itself.
    """
    if not is_running(process):
        return
    family = _family(process.pid)
    _signal_group(process.pid, signal.SIGTERM)
    _wait_until_gone(family, grace_s)
    if _alive(family):
        _signal_group(process.pid, signal.SIGKILL)
        _wait_until_gone(family, 5.0)


def free_ports(count: int) -> list[int]:
    """Return loopback ports that nobody listens on at the moment.

    They lie below the range from which systems take the near ends of outgoing connections, so that no connection
    holds one of them when the service comes back to it.

    Raises:
        StorageError: There are not enough.
    """
    candidates = random.SystemRandom().sample(_PORTS, len(_PORTS))
    found = list(itertools.islice((port for port in candidates if are_free((port,))), count))
    if len(found) < count:
        raise StorageError(
            f"cannot find {count} free loopback ports in {_PORTS.start}-{_PORTS.stop - 1}; free some"
        )
    return found


def are_free(ports: Sequence[int]) -> bool:
    """Return whether nobody listens on any of these loopback ports."""
    with contextlib.ExitStack() as stack:
        try:
            for port in ports:
                each = stack.enter_context(socket.socket())
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                each.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


def _alive(family: Sequence[psutil.Process]) -> list[psutil.Process]:
    alive: list[psutil.Process] = []
    for member in family:
        with contextlib.suppress(psutil.Error):
            if member.is_running() and not _has_ended(member):
                alive.append(member)
    return alive


def _has_ended(process: psutil.Process) -> bool:
    """Say whether a process is a zombie through and through.

    The first thread may be a zombie while others have yet to end, and until they do the process holds its ports.
    """
    return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _wait_until_gone(family: Sequence[psutil.Process], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while _alive(family) and time.monotonic() < deadline:
        time.sleep(0.05)
    for member in family:
        with contextlib.suppress(ChildProcessError, OSError):
            os.waitpid(member.pid, os.WNOHANG)
