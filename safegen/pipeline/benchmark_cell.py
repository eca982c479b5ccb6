"""A cell of the benchmark: one defence under one attack, measured once and kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from safegen.domain.benchmark import BenchmarkRow, JudgedPicture

Kept = TypeVar("Kept", bound=BaseModel)


class CellResult(BaseModel):
    """What a cell ends with.

    Attributes:
        defence: Whose.
        attack: Under what.
        text_dependent: Whether the defence acts by what a prompt says.
        rows: Its numbers; none where the attack does not apply to the defence.
        judged: Its pictures by suite, for tests in pairs.
        suite_file: The prompts that the attack found; None where it finds none.
        run_id: Where it is recorded.
        seconds: How long it took, what was kept from before apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    defence: str
    attack: str
    text_dependent: bool = False
    rows: tuple[BenchmarkRow, ...]
    judged: dict[str, tuple[JudgedPicture, ...]] = {}
    suite_file: Path | None = None
    run_id: str = ""
    seconds: float = 0.0


def kept(path: Path, kind: type[Kept], make: Callable[[], Kept]) -> Kept:
    """Return what a file holds, or make it and keep it; a file cut short is made again."""
    found = read_kept(path, kind)
    if found is not None:
        return found
    made = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    pending = path.with_name(f"{path.name}.{os.getpid()}.part")
    pending.write_text(made.model_dump_json(), encoding="utf-8")
    pending.replace(path)
    return made


def read_kept(path: Path, kind: type[Kept]) -> Kept | None:
    """Return what a file holds, or None where it is missing or no such thing."""
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        """Begin."""
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Passed so far."""
        return round(time.monotonic() - self._started, 1)
