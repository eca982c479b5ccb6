"""Several processes that edit together (torch.distributed): what the first one decides for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from safegen.errors import EditError

Value = TypeVar("Value")


def agreed(make: Callable[[], Value]) -> Value:
    """Return what the first process makes, in every process; alone, simply what `make` returns.

    Args:
        make: Called in the first process only. What it returns must be plain values or tensors on the CPU.

    Raises:
        EditError: `make` raised it, in every process alike; so none waits for the others.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return make()
    answer: list[object] = [None, None]
    if dist.get_rank() == 0:
        try:
            answer[0] = make()
        except EditError as error:
            answer[1] = str(error)
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise EditError(str(answer[1]))
    return answer[0]  # pyright: ignore[reportReturnType]  (broadcast returns what `make` made)
