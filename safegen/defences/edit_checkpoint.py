"""Keeps unfinished edits: weights, optimiser state and running average at a step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from safegen.defences.ranks import agreed
from safegen.errors import EditError


@dataclass(frozen=True, slots=True)
class EditState:
    """All that changes while an edit runs, by reference.

    Attributes:
        identity: Which edit this is: base model, settings, seed and data.
        weights: Trained weights by name, and what else is trained beside them.
        average: Running average by name; empty where the edit has none.
        optimizer: The optimiser.
        scaler: Loss scaling, where float16 needs it.
    """

    identity: str
    weights: Mapping[str, torch.Tensor]
    average: Mapping[str, torch.Tensor]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None = None


def save_progress(path: Path, state: EditState, step: int) -> None:
    """Write progress so that the file is always whole: a new file replaces the old one at once.

    Args:
        path: The file.
        state: What to keep.
        step: Steps done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "identity": state.identity,
        "weights": {name: weight.detach().cpu() for name, weight in state.weights.items()},
        "average": {name: weight.cpu() for name, weight in state.average.items()},
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict() if state.scaler is not None else {},
        "step": step,
    }
    pending = path.with_name(f"{path.name}.part")
    with pending.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    pending.replace(path)


def load_progress(path: Path | None, state: EditState) -> int:
    """Put saved progress back in place and return the number of steps done; 0 where there is no file.

    Progress of another edit is left aside: the edit then begins anew. Where several processes edit together the
    first one's file counts for all.

    Raises:
        EditError: The file is damaged, or no progress of an edit.
    """
    content = agreed(lambda: _read(path) if path is not None and path.exists() else None)
    if content is None or content["identity"] != state.identity:
        return 0
    with torch.no_grad():
        for name, weight in state.weights.items():
            weight.copy_(content["weights"][name])
        for name, average in state.average.items():
            average.copy_(content["average"][name])
    state.optimizer.load_state_dict(content["optimizer"])
    if state.scaler is not None:
        state.scaler.load_state_dict(content["scaler"])
    return int(content["step"])


def _read(path: Path) -> dict[str, Any]:
    remedy = "delete it to begin the edit anew"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise EditError(f"edit progress {path}: cannot be read ({reason}); {remedy}") from error
    expected = {"identity", "weights", "average", "optimizer", "scaler", "step"}
    if not isinstance(content, dict) or content.keys() != expected:
        raise EditError(f"edit progress {path}: is no progress of an edit; {remedy}")
    return content
