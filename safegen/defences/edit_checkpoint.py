"""Keeps unfinished edits: weights, optimiser state and running average at a step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from safegen.errors import EditError


def save_progress(
    path: Path,
    identity: str,
    weights: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, torch.Tensor],
    step: int,
) -> None:
    """Write progress so that the file is always whole: a new file replaces the old one at once.

    Args:
        path: The file.
        identity: Which edit this is: settings, seed and data.
        weights: Trained weights by name.
        optimizer: The optimiser.
        average: Running average by name.
        step: Steps done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "identity": identity,
        "weights": {name: weight.detach().cpu() for name, weight in weights.items()},
        "optimizer": optimizer.state_dict(),
        "average": dict(average),
        "step": step,
    }
    pending = path.with_name(f"{path.name}.part")
    with pending.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(pending, path)


def load_progress(
    path: Path,
    identity: str,
    weights: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, torch.Tensor],
) -> int:
    """Put saved progress back in place and return the number of steps done.

    Progress of another edit is left aside: the edit then begins anew.

    Raises:
        EditError: The file is damaged.
    """
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise EditError(
            f"edit progress {path}: cannot be read ({error}); delete it to begin the edit anew"
        ) from error
    if state["identity"] != identity:
        return 0
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(state["weights"][name])
            average[name].copy_(state["average"][name])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
