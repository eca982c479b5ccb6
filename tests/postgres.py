"""A PostgreSQL server of Debian's packages, on loopback and with a password, for one test session."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest

from safegen.stack.processes import free_ports

REQUIRED = "SAFEGEN_REQUIRE_POSTGRES"


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    port: int
    user: str
    password: str

    def uri(self, database: str) -> str:
        return f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    def create(self, *databases: str) -> None:
        with closing(psycopg2.connect(self.uri("postgres"))) as connection:
            connection.autocommit = True
            for database in databases:
                connection.cursor().execute(f"CREATE DATABASE {database}")

    def rows(self, database: str, query: str) -> list[tuple]:
        with closing(psycopg2.connect(self.uri(database))) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()


def programs() -> Path:
    """Return the folder of the server's programs; without it, CI fails and others skip."""
    places = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "initdb").is_file() and (place / "postgres").is_file():
            return place
    missing = "PostgreSQL is not installed: apt-get install postgresql"
    if os.environ.get(REQUIRED):
        pytest.fail(missing)
    return pytest.skip(missing)


@contextmanager
def postgres_server(user: str, password: str) -> Iterator[Postgres]:
    """Run a server with a new cluster; it refuses to be root's, so root lends it to its own user."""
    program = programs()
    owner = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="safegen-postgres-") as folder:
        word = Path(folder) / "password"
        word.write_text(password)
        if owner:
            for path in (folder, word):
                shutil.chown(path, owner)
        [port] = free_ports(1)
        _run(
            f"{program}/initdb --pgdata data --username {user} --auth scram-sha-256 --pwfile password --no-sync",
            folder,
            owner,
        )
        server = subprocess.Popen(
            [f"{program}/postgres", *f"-D data -p {port} -F -h 127.0.0.1 -k".split(), ""],
            user=owner,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=folder,
        )
        try:
            found = Postgres(port, user, password)
            _wait_until_it_answers(found)
            yield found
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=30)


def _run(command: str, folder: str, owner: str | None) -> None:
    ended = subprocess.run(
        command.split(), user=owner, cwd=folder, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def _wait_until_it_answers(server: Postgres) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg2.connect(server.uri("postgres")).close()
        except psycopg2.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
