"""Start, inspect and stop the local services under one folder."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

from safegen.adapters.s3_store import S3Credentials, S3Location, S3Store, open_s3_store
from safegen.errors import StorageError
from safegen.stack import seaweedfs, servers
from safegen.stack.identities import PROBE_PREFIX, IdentityName, read_secrets
from safegen.stack.processes import (
    ProcessIdentity,
    are_free,
    free_ports,
    is_running,
    own_identity,
    start_process,
    stop_process,
)
from safegen.stack.servers import RegistrySettings
from safegen.stack.service import Service
from safegen.stack.state import Claim, ServiceName, StackState, exclusive, read_state, write_state

_logger = logging.getLogger(__name__)

SERVICES: tuple[ServiceName, ...] = ("s3", "mlflow", "prefect")
"""Every service, in the order in which they start; MLflow needs the object store."""

_PORT_COUNTS: dict[ServiceName, int] = {"s3": len(seaweedfs.PORT_FLAGS), "mlflow": 1, "prefect": 1}
_OWN_DATABASE = RegistrySettings()
_POLL_S = 0.1
_PORT_REUSE_S = 2.0  # a port just given back may be held a little longer by its last connections
_LOG_TAIL_LINES = 3


@dataclass(frozen=True)
class ServiceStatus:
    """How one service is.

    Attributes:
        name: Its name.
        state: "running", "stopped", or "died" (it was started and is gone without having been stopped).
        url: Its loopback address, None unless it runs.
        pid: Its process, None unless it runs.
        log: File with its output.
    """

    name: ServiceName
    state: Literal["running", "stopped", "died"]
    url: str | None
    pid: int | None
    log: Path


@dataclass(frozen=True)
class S3Access:
    """How one identity reaches the local object store."""

    location: S3Location
    credentials: S3Credentials


def start(
    root: Path,
    services: Sequence[ServiceName] = SERVICES,
    *,
    registry: RegistrySettings = _OWN_DATABASE,
    timeout_s: float = 90.0,
) -> tuple[ServiceStatus, ...]:
    """Start services that do not run yet, keep them up, and return once each of them does its work.

    Args:
        root: Folder of the stack: state, logs, data, secrets.
        services: Which; the object store is added when MLflow is among them.
        registry: The MLflow server's database and trusted keys.
        timeout_s: How long one service may take until it works.

    Returns:
        The status of every service, also of those not asked for.

    Raises:
        LocalStoreUnsupportedError: The object store has no build for this platform.
        StorageError: A service did not start; its log is named, and it is stopped again.
    """
    root = root.absolute()
    wanted = set(services) | ({"s3"} if "mlflow" in services else set[ServiceName]())
    with exclusive(root):
        names: list[ServiceName] = [name for name in SERVICES if name in wanted]
        _start(root, names, registry, timeout_s)
        state = read_state(root)
        for name in names:
            state = state.with_kept(name, kept=True)
        write_state(root, state)
    return status(root)


@contextmanager
def borrow(root: Path, name: ServiceName, *, timeout_s: float = 90.0) -> Generator[None]:
    """Have a service up inside the block, started if need be.

    Whoever is the last to leave stops it, unless it is kept up (`start`). A user that was killed counts no more, so
    what it left running is stopped by the next one.

    Args:
        root: Folder of the stack.
        name: Which service.
        timeout_s: How long it may take until it works.

    Raises:
        LocalStoreUnsupportedError: The object store has no build for this platform.
        StorageError: It did not start, or cannot be stopped.
    """
    root = root.absolute()
    claim = Claim(**own_identity().model_dump(), token=uuid.uuid4().hex)
    with exclusive(root):
        _start(root, [name], _OWN_DATABASE, timeout_s)
        state = read_state(root)
        write_state(root, state.with_claims(name, (*_users(state, name), claim)))
    try:
        yield
    finally:
        with exclusive(root):
            state = read_state(root)
            left = tuple(user for user in _users(state, name) if user != claim)
            write_state(root, state.with_claims(name, left))
            if not left and name not in state.kept:
                _stop(root, name)


def stop(root: Path, services: Sequence[ServiceName] = SERVICES) -> tuple[ServiceStatus, ...]:
    """Stop services, in reverse order; only processes that this stack started are touched.

    Args:
        root: Folder of the stack.
        services: Which.

    Returns:
        The status of every service.

    Raises:
        StorageError: The state is damaged, or a process cannot be stopped.
    """
    root = root.absolute()
    with exclusive(root):
        for name in reversed(SERVICES):
            if name in services:
                _stop(root, name)
    return status(root)


def status(root: Path) -> tuple[ServiceStatus, ...]:
    """Return how every service is, without changing anything.

    Raises:
        StorageError: The state is damaged.
    """
    root = root.absolute()
    state = read_state(root)
    return tuple(_status_of(root, name, state) for name in SERVICES)


def running_url(root: Path, name: ServiceName) -> str | None:
    """Return where a service answers that was started under `root`; None where it does not run.

    Raises:
        StorageError: The state is damaged.
    """
    return next((one.url for one in status(root) if one.name == name), None)


def s3_access(root: Path, identity: IdentityName) -> S3Access:
    """Return how an identity reaches the object store that runs under `root`.

    Raises:
        StorageError: It does not run, or its secrets are missing.
    """
    root = root.absolute()
    state = read_state(root)
    if _status_of(root, "s3", state).state != "running":
        raise StorageError(f"the local object store under {root} does not run; start it: safegen stack up")
    secrets = read_secrets(root / "s3" / "identities.json")
    return S3Access(seaweedfs.s3_location(state.ports["s3"][0]), secrets[identity])


def open_store(root: Path, identity: IdentityName) -> S3Store:
    """Open the object store that runs under `root` as one of its identities, probing it where that may write.

    Raises:
        StorageError: It does not run, or ignores conditional writes.
    """
    access = s3_access(root, identity)
    probe_prefix = None if identity == "reader" else PROBE_PREFIX
    return open_s3_store(access.location, credentials=access.credentials, probe_prefix=probe_prefix)


def _start(root: Path, names: Sequence[ServiceName], registry: RegistrySettings, timeout_s: float) -> None:
    # All are launched before any is waited for: their start is mostly imports, which can overlap.
    launched = [_launch(root, name, registry) for name in names]
    for service, process in launched:
        _await(root, service, process, timeout_s)


def _stop(root: Path, name: ServiceName) -> None:
    state = read_state(root)
    process = state.processes.get(name)
    if process is not None:
        stop_process(process)
        if is_running(process):
            raise StorageError(f"cannot stop {name} (process {process.pid}); end it by hand")
        state = state.with_service(name, state.ports[name], None)
    write_state(root, state.with_kept(name, kept=False).with_claims(name, ()))


def _users(state: StackState, name: ServiceName) -> tuple[Claim, ...]:
    """Return who uses a service and still lives."""
    return tuple(claim for claim in state.claims.get(name, ()) if is_running(claim))


def _launch(root: Path, name: ServiceName, registry: RegistrySettings) -> tuple[Service, ProcessIdentity]:
    """Start a service's process, unless it runs, and remember it before anything else can go wrong."""
    state = read_state(root)
    process = state.processes.get(name)
    if process is not None and is_running(process):
        return _service(root, name, state.ports[name], state, registry), process
    ports = _ports(state, name)
    service = _service(root, name, ports, state, registry)
    log = _log(root, name)
    log.parent.mkdir(exist_ok=True, mode=0o700)
    process = start_process(service.command, folder=service.folder, log=log, environment=service.environment)
    write_state(root, state.with_service(name, ports, process))
    _logger.info("started %s as process %d on port %d", name, process.pid, ports[0])
    return service, process


def _await(root: Path, service: Service, process: ProcessIdentity, timeout_s: float) -> None:
    """Wait until a service does its work; one that does not is stopped."""
    try:
        _wait_until_ready(service, process, _log(root, service.name), timeout_s)
    except StorageError:
        stop_process(process)
        state = read_state(root)
        write_state(root, state.with_service(service.name, state.ports[service.name], None))
        raise


def _service(
    root: Path, name: ServiceName, ports: tuple[int, ...], state: StackState, registry: RegistrySettings
) -> Service:
    match name:
        case "s3":
            return seaweedfs.seaweedfs(root / "s3", ports)
        case "mlflow":
            return servers.mlflow(
                root / "mlflow",
                ports[0],
                registry=registry,
                s3_endpoint_url=_url(state.ports["s3"][0]),
                credentials=read_secrets(root / "s3" / "identities.json")["mlflow"],
            )
        case "prefect":
            return servers.prefect(root / "prefect", ports[0])
        case _:
            assert_never(name)


def _ports(state: StackState, name: ServiceName) -> tuple[int, ...]:
    """Take the ports of the last time, or new ones when somebody else has taken one of them."""
    known = state.ports.get(name, ())
    deadline = time.monotonic() + _PORT_REUSE_S
    while len(known) == _PORT_COUNTS[name] and time.monotonic() < deadline:
        if are_free(known):
            return known
        time.sleep(_POLL_S)
    return tuple(free_ports(_PORT_COUNTS[name]))


def _wait_until_ready(service: Service, process: ProcessIdentity, log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            service.check()
        except (StorageError, OSError) as error:
            problem = str(error)
        else:
            return
        if not is_running(process):
            raise StorageError(f"{service.name} ended while starting: {_last_words(log)}; see {log}")
        if time.monotonic() > deadline:
            raise StorageError(
                f"{service.name} did not work within {timeout_s:g} s ({problem}); see {log}, or allow more time"
            )
        time.sleep(_POLL_S)


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        return "no output"
    return " | ".join([line.strip() for line in lines if line.strip()][-_LOG_TAIL_LINES:]) or "no output"


def _status_of(root: Path, name: ServiceName, state: StackState) -> ServiceStatus:
    process = state.processes.get(name)
    if process is None:
        return ServiceStatus(name, "stopped", None, None, _log(root, name))
    if not is_running(process):
        return ServiceStatus(name, "died", None, None, _log(root, name))
    return ServiceStatus(name, "running", _url(state.ports[name][0]), process.pid, _log(root, name))


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _log(root: Path, name: ServiceName) -> Path:
    return root / "logs" / f"{name}.log"
