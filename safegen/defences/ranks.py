"""Several processes that edit together (accelerate, torch.distributed): how they meet, and what the first decides."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch.distributed as dist

from safegen.errors import EditError

if TYPE_CHECKING:
    from accelerate import Accelerator

Value = TypeVar("Value")
_LONGEST_WAIT = timedelta(hours=2)  # of other processes, while the first one draws previews


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


def open_accelerator(mixed_precision: str) -> Accelerator:
    """Return what places, wraps and scales in this process, one of several under `accelerate launch`.

    Args:
        mixed_precision: "no", "fp16" or "bf16".

    Raises:
        EditError: This machine cannot compute so, or the processes do not find each other.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState

    # accelerate keeps the precision for the whole process and refuses another; edits are independent of each other.
    AcceleratorState._reset_state()  # noqa: SLF001
    advice = f'edit: mixed_precision = "{mixed_precision}" does not work on this machine'
    try:
        waiting = InitProcessGroupKwargs(timeout=_LONGEST_WAIT)
        accelerator = Accelerator(mixed_precision=mixed_precision, kwargs_handlers=[waiting])
    except ValueError as error:
        raise EditError(f'{advice} ({error}); use "no" or "bf16"') from error
    if mixed_precision != "no" and not accelerator.native_amp:  # on a CPU it would silently be float32
        raise EditError(f'{advice} ({accelerator.device.type}); use "no" or "bf16"')
    if dist.is_initialized() and accelerator.num_processes != dist.get_world_size():
        raise EditError(
            f"edit: accelerate sees {accelerator.num_processes} processes of {dist.get_world_size()}; start them by "
            "accelerate launch (on CPUs by torch.distributed.run with ACCELERATE_USE_CPU=true)"
        )
    return accelerator
