"""Versions of what is installed, against what safegen asks for, and licences that differ from what they seem."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata

from packaging.requirements import Requirement

from safegen.doctor.finding import Finding
from safegen.stack.seaweedfs import LocalStoreUnsupportedError, find_server

_PYTHONS = ((3, 11), (3, 13))
_KNOWN_BAD = {
    "fastapi": "with newer ones Prefect's server cannot be imported",
    "prefect": "newer ones ask for a certifi that is not published",
    "sqlalchemy": "with 2.1 Prefect's server looks healthy and no schedule ever fires",
}
_REMEDY = "pip install -c constraints.txt safegen"


def examine_python() -> Finding:
    """Look at the interpreter and the machine."""
    found, text = (
        sys.version_info[:2],
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
    )
    if _PYTHONS[0] <= found <= _PYTHONS[1]:
        return Finding("python", "ok", text)
    return Finding(
        "python", "failed", f"{text}; expected 3.11 to 3.13: make a virtual environment with one of them"
    )


def examine_libraries() -> Iterator[Finding]:
    """Look at every library that safegen needs, in the version that is installed."""
    try:
        wanted = metadata.requires("safegen") or []
    except metadata.PackageNotFoundError:
        yield Finding("safegen", "failed", f"is not installed, so its needs are not known; {_REMEDY}")
        return
    yield Finding("safegen", "ok", metadata.version("safegen"))
    yield from compare_libraries(wanted)


def compare_libraries(wanted: Iterable[str]) -> Iterator[Finding]:
    """Compare what is installed with requirements.

    Args:
        wanted: Such as "fastapi>=0.139,<0.151"; those of extras and of other platforms are left out.

    >>> [found] = compare_libraries(["pydantic>=99"])
    >>> found.state
    'failed'
    """
    for requirement in map(Requirement, wanted):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _compare(requirement)


def _compare(requirement: Requirement) -> Finding:
    name = requirement.name
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, "failed", f"is not installed; expected {requirement.specifier}: {_REMEDY}")
    if requirement.specifier.contains(found, prereleases=True):
        return Finding(name, "ok", found)
    reason = f" ({_KNOWN_BAD[name]})" if name in _KNOWN_BAD else ""
    return Finding(name, "failed", f"{found}; expected {requirement.specifier}{reason}: {_REMEDY}")


def examine_local_store() -> Finding:
    """Look for the program of the local object store."""
    try:
        return Finding("local store", "ok", str(find_server()))
    except LocalStoreUnsupportedError as error:
        return Finding("local store", "note", f"{error}; runs keep releases in a plain folder here")


def examine_licences() -> Iterator[Finding]:
    """Compare what NudeNet's metadata says of its licence with the licence files in its wheel."""
    try:
        wheel = metadata.distribution("nudenet")
    except metadata.PackageNotFoundError:
        return
    stated = wheel.metadata["License"] or "nothing"
    files = [str(file.read_text()) for file in wheel.files or [] if file.name.upper().startswith("LICENSE")]
    affero = any("AFFERO GENERAL PUBLIC LICENSE" in text.upper() for text in files)
    if affero and "AGPL" not in stated.upper():
        detail = (
            f"NudeNet: its metadata says {stated}, the LICENSE in its wheel is the AGPL-3.0; ask whoever "
            "clears licences before you distribute it or serve with it"
        )
        yield Finding("licence", "note", detail)
    else:
        yield Finding("licence", "ok", f"NudeNet: {stated}")
