"""SafeGen's edit in the form of all weight edits; what it does is in `safegen.defences.safegen`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from safegen.defences.edit_loop import EditObservers
from safegen.defences.safegen import SafeGenSettings, TripletLatents, edit_unet
from safegen.defences.weight_edit import Part

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


class SafeGenEdit:
    """The edit of one set of triplets."""

    text_dependent = False
    parts: tuple[Part, ...] = ("unet",)
    name = "safegen"

    def __init__(self, data: TripletLatents, settings: SafeGenSettings, *, seed: int) -> None:
        """Edit nothing yet.

        Args:
            data: Triplets, encoded by the base model that will be edited.
            settings: How.
            seed: Of everything random.
        """
        self._data, self._settings, self._seed = data, settings, seed

    @property
    def identity(self) -> Mapping[str, object]:
        """Settings, triplets and seed."""
        digest = hashlib.sha256()
        for tensor in self._data.tensors():
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return {
            **self._settings.model_dump(mode="json"),
            "triplets": digest.hexdigest(),
            "seed": self._seed,
        }

    def edit(
        self,
        pipeline: StableDiffusionPipeline,
        *,
        progress_file: Path | None = None,
        observers: EditObservers | None = None,
    ) -> None:
        """Edit the U-Net's self-attention in place; see `edit_unet`."""
        edit_unet(
            pipeline,
            self._data,
            self._settings,
            seed=self._seed,
            progress_file=progress_file,
            observers=observers,
        )
