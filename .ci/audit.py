"""Audits the dependencies against the lock: every version pinned once, and all that safegen needs installed as pinned.

It needs no network, so it says nothing of vulnerabilities that became known later: run `pip-audit` where its database
can be reached.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.!]+)(?:\s*;.*)?")
OWN = {"safegen", "pip", "setuptools", "wheel"}


def main() -> int:
    """Print what is wrong, one line each; 0 for nothing."""
    lock = Path(__file__).parents[1] / "constraints.txt"
    lines = [line.strip() for line in lock.read_text().splitlines()]
    pins, problems = read_pins([line for line in lines if line and not line.startswith("#")])
    problems += not_as_locked(pins)
    checked = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    problems += checked.stdout.splitlines() if checked.returncode else []
    for problem in problems:
        print(f"audit: {problem}")
    print(f"audit: {len(pins)} versions pinned, {len(problems)} problems")
    return 1 if problems else 0


def read_pins(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the version of each package, and what is no pin or is pinned twice."""
    pins: dict[str, str] = {}
    problems: list[str] = []
    for line in lines:
        match = PIN.fullmatch(line)
        if match is None:
            problems.append(f"constraints.txt: {line!r} pins no version; expected name==version")
        elif (name := normal(match["name"])) in pins:
            problems.append(f"constraints.txt: {name} is pinned twice")
        else:
            pins[name] = match["version"]
    return pins, problems


def not_as_locked(pins: dict[str, str]) -> list[str]:
    """Return what safegen and its extra `dev` need that is installed in another version than the lock says."""
    found = {name: metadata.version(name).partition("+")[0] for name in needed("safegen", "dev")}
    return [
        f"{name} {version} is installed, the lock says {pins.get(name, 'nothing')}"
        for name, version in sorted(found.items())
        if name not in OWN and pins.get(name) != version
    ]


def needed(name: str, extra: str) -> set[str]:
    """Return all that a package needs here, directly or not, that is installed."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    queue = [(name, extra)]
    while queue:
        wanted, its_extra = queue.pop()
        if (wanted, its_extra) in seen:
            continue
        seen.add((wanted, its_extra))
        try:
            requirements = [Requirement(line) for line in metadata.requires(wanted) or ()]
        except metadata.PackageNotFoundError:
            continue  # `pip check` tells if it is missing
        found.add(normal(wanted))
        for one in requirements:
            if one.marker is None or one.marker.evaluate({"extra": its_extra}):
                queue += [(normal(one.name), more) for more in ("", *one.extras)]
    return found


def normal(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
