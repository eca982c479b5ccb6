"""Where the runs and policies that ship with safegen are: in an installed wheel and in a source tree alike."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from safegen.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def shipped_folder(kind: Literal["configs", "policies"]) -> Path:
    """Return the folder of shipped run configurations or policies.

    Raises:
        ConfigError: Neither the wheel nor a source tree holds it.
    """
    places = (_PACKAGE / "_data" / kind, _PACKAGE.parent / kind)
    for place in places:
        if place.is_dir():
            return place
    raise ConfigError(
        f"cannot find the shipped {kind}: looked in {places[0]} and {places[1]}; install safegen again"
    )


def shipped_deployments() -> Path:
    """Return the `prefect.yaml` that ships with safegen.

    Raises:
        ConfigError: Neither the wheel nor a source tree holds it.
    """
    places = (_PACKAGE / "_data" / "prefect.yaml", _PACKAGE.parent / "prefect.yaml")
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(
        f"cannot find prefect.yaml: looked in {places[0]} and {places[1]}; install safegen again"
    )


def locate(path: Path) -> Path:
    """Return the file that `path` names: the caller's own, or else the shipped one of the same name.

    So `configs/miniature.toml` means the same in a source tree and after `pip install`.

    Args:
        path: As the user gave it. Only `configs/…` and `policies/…` fall back to what is shipped.

    Raises:
        ConfigError: There is no such file.
    """
    if path.is_file():
        return path
    kind = path.parts[0] if path.parts else ""
    if kind in ("configs", "policies"):
        shipped = shipped_folder(kind).joinpath(*path.parts[1:])
        if shipped.is_file():
            return shipped
    raise ConfigError(f"cannot read {path}: no such file; give the path of a TOML file")
