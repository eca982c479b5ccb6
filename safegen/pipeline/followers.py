"""Several processes in one run: the first does the whole job, the others wait and help with its edit.

`accelerate launch … -m safegen retrain …` starts the same command once a GPU, on one machine or several. The first
process runs the flow. The others only follow: whenever the flow comes to an edit, they are sent what it is trained on,
edit along (`safegen.defences.safegen.edit_unet`), and wait again, until the first process is done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.bootstrap import load_placed, processes
from safegen.config import HardwareSection
from safegen.defences.safegen_settings import SafeGenSettings

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from safegen.defences.safegen import TripletLatents

_log = logging.getLogger(__name__)
_LONGEST_WAIT = timedelta(days=30)  # of followers, while the first process ingests and evaluates


@dataclass(frozen=True)
class EditJob:
    """What a follower must know to edit along.

    Attributes:
        base: Folder of the base model; the same path on every machine.
        hardware: Where it computes.
        settings: How to edit.
        seed: Of the edit.
        data: What it is trained on.
    """

    base: Path
    hardware: HardwareSection
    settings: SafeGenSettings
    seed: int
    data: TripletLatents


@dataclass
class _Channel:
    """What jobs are sent over, and whether followers are in the middle of one."""

    group: ProcessGroup
    busy: bool = False

    def exchange(self, job: EditJob | None) -> EditJob | None:
        """Return the first process's job in every process."""
        import torch.distributed as dist

        sent: list[EditJob | None] = [job]
        dist.broadcast_object_list(sent, src=0, group=self.group)
        return sent[0]


@contextmanager
def followed(job: EditJob) -> Iterator[None]:
    """Send a job to all followers, if there are any; the first process does the same edit in the block."""
    if processes() == 1:
        yield
        return
    channel = _channel()
    channel.busy = True
    channel.exchange(job)
    yield
    channel.busy = False  # after an error they are left where they are, and the launcher ends them


@contextmanager
def leading() -> Iterator[None]:
    """Let the followers go when the block has ended."""
    channel = _channel()
    try:
        yield
    finally:
        if not channel.busy:
            channel.exchange(None)
            _part()


def follow() -> None:
    """Help with edits until the first process lets go.

    Raises:
        EditError: An edit failed, here or for all.
        DataError: The base model is not there.
    """
    from safegen.defences.safegen import edit_unet

    channel = _channel()
    while (job := channel.exchange(None)) is not None:
        _log.info("following an edit of %s", job.base)
        edit_unet(load_placed(job.base, job.hardware), job.data, job.settings, seed=job.seed)
    _part()


@lru_cache(maxsize=1)
def _channel() -> _Channel:
    """Open a group beside the one that gradients go through, and more patient."""
    import torch.distributed as dist

    from safegen.defences.ranks import open_accelerator

    open_accelerator("no")
    return _Channel(dist.new_group(backend="gloo", timeout=_LONGEST_WAIT))  # pyright: ignore[reportArgumentType]


def _part() -> None:
    """End all groups together; a process that merely exits may pull the connection from under another."""
    import torch.distributed as dist

    dist.barrier(group=_channel().group)
    dist.destroy_process_group()
    _channel.cache_clear()
