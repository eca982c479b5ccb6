"""What it takes to run one service, and how its health is asked for."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safegen.stack.state import ServiceName


@dataclass(frozen=True)
class Service:
    """One server to run.

    Attributes:
        name: Its name in the stack.
        command: Program and arguments.
        folder: Its working directory.
        environment: Variables in addition to those every process inherits.
        check: Raises `StorageError` or `OSError` as long as the server does not do its work.
    """

    name: ServiceName
    command: tuple[str, ...]
    folder: Path
    check: Callable[[], None]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


def check_http(port: int, path: str) -> None:
    """Ask a loopback server's health address.

    Raises:
        OSError: It does not answer, or not with 200.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except http.client.HTTPException as error:
        raise OSError(f"http://127.0.0.1:{port}{path} answered no HTTP ({error!r})") from error
    finally:
        connection.close()
    if status != 200:
        raise OSError(f"http://127.0.0.1:{port}{path} answered {status}")
