"""The audit of the lock, on locks that are none."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", Path(".ci/audit.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("line", ["torch", "torch>=2", "torch==2.*", "torch @ https://x/y.whl", "-e ."])
def test_what_pins_no_version_is_told(audit: ModuleType, line: str) -> None:
    pins, problems = audit.read_pins(["numpy==2.4.6", line])
    assert pins == {"numpy": "2.4.6"}
    assert "pins no version" in problems[0]


def test_a_package_pinned_twice_under_two_spellings_is_told(audit: ModuleType) -> None:
    assert audit.read_pins(["a.b==1", "A_B==2"])[1] == ["constraints.txt: a-b is pinned twice"]


def test_what_is_installed_beside_the_lock_is_told(audit: ModuleType) -> None:
    found = audit.not_as_locked({"numpy": "0.1"})
    assert any(line.startswith("numpy ") and line.endswith("the lock says 0.1") for line in found)
    assert any(line.startswith("torch ") and line.endswith("the lock says nothing") for line in found)
