"""Retrained on censored data: not the base with a defence, but a model that never saw the concept.

A baseline of Li et al. (SafeGen, ACM CCS 2024, https://arxiv.org/abs/2404.06666, section 5). The paper takes Stable
Diffusion 2.1, whose training data were filtered; it differs from SD 1.4 in more than its data, so that comparison is
not of the data alone. The miniature has a second U-Net of the same architecture, trained on everything but the concept.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from safegen.defences.defence import ProtectedModel
from safegen.diffusion.checkpoint import load_pipeline
from safegen.diffusion.int8_weights import load_int8
from safegen.diffusion.pipeline_parts import with_parts
from safegen.domain.digests import digest_json, sha256_file, tree_digest
from safegen.errors import DataError, EditError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

_MUST_FIT: Final = ("sample_size", "in_channels", "out_channels", "cross_attention_dim")


class RetrainedUnet:
    """Puts another U-Net into the base's place; all else stays the base's."""

    text_dependent = False
    name = "retrained"

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is loaded yet.

        Args:
            folder: With `config.json` and `unet.safetensors` (see `safegen.diffusion.int8_weights`).
        """
        self._folder = folder

    def protect(self, model: ProtectedModel) -> ProtectedModel:
        """Return the model with the other U-Net.

        Raises:
            DataError: The folder is missing or damaged.
            EditError: This U-Net does not fit the model's text tower and latents.
        """
        unet = load_retrained_unet(self._folder)
        for key in _MUST_FIT:
            if unet.config[key] != model.pipeline.unet.config[key]:
                raise EditError(
                    f"retrained: the U-Net of {self._folder} has {key} {unet.config[key]}, the model "
                    f"{model.pipeline.unet.config[key]}; expected one that was trained for this model"
                )
        digests = {name: sha256_file(self._folder / name) for name in ("config.json", "unet.safetensors")}
        pipeline = with_parts(model.pipeline, unet=unet)
        pipeline.unet.to(device=model.pipeline.unet.device, dtype=model.pipeline.unet.dtype)
        return replace(
            model, sha256=digest_json({"base": model.sha256, "retrained": digests}), pipeline=pipeline
        )


class RetrainedCheckpoint:
    """Takes another checkpoint in place of the base."""

    text_dependent = False
    name = "retrained"

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is loaded yet.

        Args:
            folder: In diffusers layout.
        """
        self._folder = folder

    def protect(self, model: ProtectedModel) -> ProtectedModel:
        """Return the other checkpoint, on the device of the given one, with the given one's filters and guidance.

        Raises:
            DataError: It cannot be loaded.
        """
        pipeline = load_pipeline(self._folder, model.pipeline.unet.dtype).to(model.pipeline.unet.device)
        return replace(model, sha256=tree_digest(self._folder), pipeline=pipeline)


def load_retrained_unet(folder: Path) -> UNet2DConditionModel:
    """Load a U-Net whose weights are kept in one byte each.

    Args:
        folder: With `config.json` and `unet.safetensors`.

    Raises:
        DataError: A file is missing or damaged, or the weights are not those of the configuration.
    """
    from diffusers import UNet2DConditionModel

    try:
        config = json.loads((folder / "config.json").read_text())
        unet = cast("UNet2DConditionModel", UNet2DConditionModel.from_config(config))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"retrained U-Net {folder}: config.json cannot be used ({error}); train it by flows/miniature.py, or "
            "install safegen again"
        ) from error
    try:
        unet.load_state_dict(load_int8(folder / "unet.safetensors"))
    except RuntimeError as error:
        raise DataError(
            f"retrained U-Net {folder}: its weights are not those of its config.json ({error})"
        ) from error
    return unet.requires_grad_(False).eval()
