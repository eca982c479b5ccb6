"""Puts a pipeline where it computes, in the form that is fast there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from safegen.errors import ConfigError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from safegen.diffusion.sampler import Precision


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a pipeline computes.

    Attributes:
        device: "auto" takes a GPU where there is one.
        channels_last: Keep U-Net and VAE in the memory layout that half-precision convolutions like on a GPU.
        compiled: Let torch.compile compile the U-Net; its first pass then takes minutes.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    channels_last: bool = False
    compiled: bool = False

    def find_device(self) -> torch.device:
        """Return the device.

        Raises:
            ConfigError: A GPU is asked for and there is none.
        """
        found = torch.cuda.is_available()
        if self.device == "cuda" and not found:
            raise ConfigError(
                'hardware.device is "cuda", but torch sees no GPU; install its drivers or use "cpu"'
            )
        return torch.device("cuda" if found and self.device != "cpu" else "cpu")


def place(
    pipeline: StableDiffusionPipeline, placement: Placement, *, weights: Precision = "float32"
) -> StableDiffusionPipeline:
    """Move a pipeline to its device and bring it into the asked form, in place.

    On a GPU the U-Net and the text towers take the floating-point type `weights`, which halves their memory; a CPU
    keeps float32, and the sampler's autocast does what can be done there. The VAE stays in float32: SDXL's overflows
    in float16.

    Args:
        pipeline: In float32.
        placement: Where and how.
        weights: Type of the weights on a GPU; "float32" for one that is to be edited.

    Returns:
        The same pipeline.

    Raises:
        ConfigError: A GPU is asked for and there is none.
    """
    device = placement.find_device()
    pipeline.to(device)
    if device.type == "cuda" and weights != "float32":
        for name in ("unet", "text_encoder", "text_encoder_2"):
            part = getattr(pipeline, name, None)
            if part is not None:
                part.to(getattr(torch, weights))
    if placement.channels_last:
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    if placement.compiled:
        pipeline.unet.compile()
    return pipeline
