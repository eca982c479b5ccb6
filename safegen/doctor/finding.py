"""What one look found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found.

    Attributes:
        name: What was looked at.
        state: "ok", "note" (a run can begin, but somebody should know) or "failed" (it cannot).
        detail: The value found; where it failed also what was expected and the next step.
    """

    name: str
    state: Literal["ok", "note", "failed"]
    detail: str
