"""The local object store is up while anybody uses it, and no longer: whoever ends, in whatever way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from safegen.stack.control import borrow, open_store, start, status, stop
from safegen.stack.state import read_state

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

USER = """
import sys, time
from pathlib import Path
from safegen.stack.control import borrow
with borrow(Path(sys.argv[1]), "s3"):
    print("up", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "stack"
    yield root
    stop(root)


def is_up(root: Path) -> bool:
    return status(root)[0].state == "running"


def another_run(root: Path) -> subprocess.Popen[str]:
    user = subprocess.Popen(
        [sys.executable, "-c", USER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert user.stdout is not None
    assert user.stdout.readline() == "up\n"
    return user


def test_the_end_of_one_run_does_not_stop_the_store_of_another(root: Path) -> None:
    with borrow(root, "s3"):
        user = another_run(root)
        user.communicate("")
        assert user.returncode == 0
        assert is_up(root)
        with borrow(root, "s3"):
            pass
        store = open_store(root, "trainer")
        store.put("runs/after", b"still there")
        assert store.get("runs/after") == b"still there"
    assert not is_up(root)


def test_what_a_killed_run_left_up_is_stopped_by_the_next(root: Path) -> None:
    user = another_run(root)
    os.kill(user.pid, signal.SIGKILL)
    user.communicate()
    assert is_up(root)
    [left] = read_state(root).claims["s3"]
    assert left.pid == user.pid
    with borrow(root, "s3"):
        assert open_store(root, "reader")
        assert len(read_state(root).claims["s3"]) == 1
    assert not is_up(root)


def test_what_a_person_started_stays_up_until_stopped(root: Path) -> None:
    start(root, ("s3",))
    with borrow(root, "s3"):
        pass
    assert is_up(root)
    with borrow(root, "s3"):
        start(root, ("s3",))  # also where a run had it up first
    assert is_up(root)
    stop(root)
    assert not is_up(root)


def test_a_store_killed_under_a_run_comes_back_for_the_next_with_what_was_acknowledged(root: Path) -> None:
    with borrow(root, "s3"):
        open_store(root, "trainer").put("runs/kept", b"acknowledged")
        pid = status(root)[0].pid
        assert pid is not None
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # it is gone
        with borrow(root, "s3"):
            assert open_store(root, "trainer").get("runs/kept") == b"acknowledged"
            assert status(root)[0].pid != pid
        assert is_up(root)
    assert not is_up(root)
