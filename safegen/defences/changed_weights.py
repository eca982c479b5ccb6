"""Keeps what a finished edit changed, so that a defence is trained once: only the tensors that differ from the base."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def save_changed_weights(
    base: StableDiffusionPipeline, edited: StableDiffusionPipeline, parts: Sequence[str], path: Path
) -> None:
    """Write the tensors of an edited pipeline that differ from the base's.

    Args:
        base: As it was before.
        edited: As it is now.
        parts: Networks that may have changed, by the names that diffusers gives them.
        path: A ``.safetensors`` file; it takes its name when it is complete.
    """
    from safetensors.torch import save_file

    changed = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part in parts
        for name, tensor in getattr(edited, part).state_dict().items()
        if not torch.equal(tensor, getattr(base, part).state_dict()[name])
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pending = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file(changed, pending)
    pending.replace(path)


def load_changed_weights(pipeline: StableDiffusionPipeline, path: Path) -> bool:
    """Put kept tensors into a copy of the base that they belong to.

    Args:
        pipeline: The copy; changed in place.
        path: Written by `save_changed_weights`.

    Returns:
        Whether there was such a file; the pipeline is unchanged where there was none, or a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        changed = load_file(path)
    except (OSError, SafetensorError):
        return False
    with torch.no_grad():
        for key, tensor in changed.items():
            part, _, name = key.partition(".")
            getattr(pipeline, part).state_dict()[name].copy_(tensor)
    return True
