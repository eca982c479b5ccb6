"""Weights at one byte each, for a checkpoint that ships beside others: symmetric int8 with one scale an output row.

The largest error of a weight is half its row's scale, 0.4 % of the row's largest weight (absmax quantisation, as in
Dettmers et al. 2022, arXiv 2208.07339, section 2.1). Vectors (biases, norms) stay float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from safegen.errors import DataError

_SCALE = ".int8_scale"
_LARGEST = 127.0


def save_int8(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write weights as safetensors, matrices in int8.

    Args:
        weights: Floating point, by name.
        path: The file to write.
    """
    stored: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if weight.dim() < 2:
            stored[name] = weight.detach().float().contiguous()
            continue
        rows = weight.detach().float().flatten(1)
        scale = (rows.abs().amax(dim=1) / _LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
        stored[name] = (rows / scale[:, None]).round().to(torch.int8).view(weight.shape).contiguous()
        stored[name + _SCALE] = scale
    save_file(stored, path)


def load_int8(path: Path) -> dict[str, torch.Tensor]:
    """Read what `save_int8` wrote, as float32.

    Raises:
        DataError: The file is missing, damaged, or a matrix lacks its scale.
    """
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read as safetensors ({error}); install safegen again") from error
    weights: dict[str, torch.Tensor] = {}
    for name, weight in stored.items():
        if name.endswith(_SCALE):
            continue
        if weight.dtype == torch.int8:
            scale = stored.get(name + _SCALE)
            if scale is None:
                raise DataError(f"{path}: {name} has no scale; install safegen again")
            weights[name] = weight.float() * scale.view(-1, *[1] * (weight.dim() - 1))
        else:
            weights[name] = weight.float()
    return weights
