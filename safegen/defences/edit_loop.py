"""The steps of an edit that is trained: one after the other, from where a killed edit was."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.defences.edit_checkpoint import EditState, load_progress, save_progress

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

_log = logging.getLogger(__name__)

StepObserver = Callable[[int, Mapping[str, float]], None]
"""Called after every optimiser step with its number (from 1) and its losses, gradient norm and learning rate."""

PreviewObserver = Callable[[int, "UNet2DConditionModel"], None]
"""Called now and then with the U-Net as it would be exported at this step."""


@dataclass(frozen=True, slots=True)
class EditObservers:
    """Who is told of progress."""

    on_step: StepObserver = lambda _step, _values: None
    on_preview: PreviewObserver = lambda _step, _unet: None


@dataclass(frozen=True, slots=True)
class EditPace:
    """How many steps an edit has, and what happens between them.

    Attributes:
        steps: Of the whole edit.
        checkpoint_every_steps: Steps between checkpoints.
        preview_every_steps: Steps between previews.
    """

    steps: int
    checkpoint_every_steps: int
    preview_every_steps: int


def run_steps(
    do_step: Callable[[int], Mapping[str, float]],
    state: EditState,
    pace: EditPace,
    unet: UNet2DConditionModel,
    *,
    progress_file: Path | None,
    observers: EditObservers,
    previewed: Callable[[], AbstractContextManager[object]] = nullcontext,
    keeps: bool = True,
) -> None:
    """Do all steps that are not done yet.

    Args:
        do_step: Does one step, numbered from 0, and returns its losses; all that is random in it follows from the
            number.
        state: All that it changes.
        pace: How many steps.
        unet: What previews are drawn with.
        progress_file: Where unfinished work is kept; None keeps none.
        observers: Who is told.
        previewed: Entered while a preview is drawn.
        keeps: Whether this process keeps progress and shows previews; of several, the first one does.

    Raises:
        EditError: Progress is damaged, or a step failed.
    """
    first_step = load_progress(progress_file, state)
    if first_step:
        _log.info("edit: going on at step %d of %d", first_step, pace.steps)
    for step in range(first_step, pace.steps):
        values = do_step(step)
        done = step + 1
        observers.on_step(done, values)
        if done == pace.steps or not keeps:
            continue
        if progress_file is not None and done % pace.checkpoint_every_steps == 0:
            save_progress(progress_file, state, done)
        if done % pace.preview_every_steps == 0:
            with previewed():
                observers.on_preview(done, unet)
