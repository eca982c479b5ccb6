"""Defences that change weights: one form for all of them, so that a run's edit stage and a stack use the same."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from safegen.defences.changed_weights import load_changed_weights, save_changed_weights
from safegen.defences.defence import ProtectedModel
from safegen.defences.edit_loop import EditObservers
from safegen.diffusion.pipeline_parts import with_copies
from safegen.domain.digests import digest_json
from safegen.errors import EditError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

Part = Literal["unet", "text_encoder"]


class WeightEdit(Protocol):
    """Changes the weights of a pipeline."""

    @property
    def name(self) -> str:
        """As `Defence.name`."""
        ...

    @property
    def text_dependent(self) -> bool:
        """As `Defence.text_dependent`."""
        ...

    @property
    def parts(self) -> tuple[Part, ...]:
        """The networks that it changes."""
        ...

    @property
    def identity(self) -> Mapping[str, object]:
        """All that decides the result, but for the base model: settings, seed, data. Plain JSON values."""
        ...

    def edit(
        self,
        pipeline: StableDiffusionPipeline,
        *,
        progress_file: Path | None = None,
        observers: EditObservers | None = None,
    ) -> None:
        """Edit a pipeline in place; the same base and identity end with the same weights, also after a kill.

        Args:
            pipeline: In float32.
            progress_file: Where unfinished work is kept; None keeps none.
            observers: Who is told of progress.

        Raises:
            EditError: The model is of another kind, or the loss is not finite.
        """
        ...


class EditedWeights:
    """A weight edit as a defence: edits a copy, and leaves the model that is given as it was."""

    def __init__(self, edit: WeightEdit, work_dir: Path | None = None) -> None:
        """Edit nothing yet.

        Args:
            edit: The edit.
            work_dir: Where unfinished edits are kept, and the changed weights of finished ones; None keeps none.
        """
        self._edit, self._work_dir = edit, work_dir

    @property
    def name(self) -> str:
        """The edit's."""
        return self._edit.name

    @property
    def text_dependent(self) -> bool:
        """The edit's."""
        return self._edit.text_dependent

    def protect(self, model: ProtectedModel) -> ProtectedModel:
        """Return the model with copies of the parts that are edited.

        Raises:
            EditError: The edit cannot be done.
        """
        sha256 = digest_json({"base": model.sha256, "edit": dict(self._edit.identity)})
        pipeline = with_copies(model.pipeline, self._edit.parts)
        if self._work_dir is None:
            self._edit.edit(pipeline)
            return replace(model, sha256=sha256, pipeline=pipeline)
        finished = self._work_dir / f"{sha256[:32]}.safetensors"
        if not load_changed_weights(pipeline, finished):
            progress = self._work_dir / f"{sha256[:16]}.pt"
            self._edit.edit(pipeline, progress_file=progress)
            save_changed_weights(model.pipeline, pipeline, self._edit.parts, finished)
            progress.unlink(missing_ok=True)
        return replace(model, sha256=sha256, pipeline=pipeline)


def trained_identity(identity: Mapping[str, object], tensors: Iterable[torch.Tensor]) -> str:
    """Name the training that progress belongs to, so that it is never continued on another base or settings.

    Args:
        identity: Of the edit.
        tensors: Of the base model, and what is trained on.
    """
    digest = hashlib.sha256(digest_json(dict(identity)).encode())
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def arithmetic(device: torch.device, precision: Literal["no", "bf16"]) -> AbstractContextManager[object]:
    """Return the context in which a network computes in this precision."""
    return nullcontext() if precision == "no" else torch.autocast(device.type, torch.bfloat16)


def check_finite(step: int, values: Mapping[str, float]) -> None:
    """Refuse to go on from a step whose losses or gradient are no numbers.

    Raises:
        EditError: Says which.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise EditError(
                f"edit: step {step + 1} has {name} {value}; expected finite values; lower learning_rate"
            )
