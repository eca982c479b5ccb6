"""Encodes pictures to latents and back, in batches, deterministically."""

# The annotations of diffusers and transformers are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


def to_batch(pictures: Sequence[NDArray[np.uint8]]) -> Float[torch.Tensor, "b 3 height width"]:
    """Stack RGB pictures (H, W, 3) uint8 of one size into a float32 batch in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def to_pictures(batch: Float[torch.Tensor, "b 3 height width"]) -> list[NDArray[np.uint8]]:
    """Turn a batch in [-1, 1] into RGB pictures (H, W, 3) uint8, rounding as diffusers does."""
    scaled = ((batch.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return list(scaled.permute(0, 2, 3, 1).cpu().numpy())


@torch.no_grad()
def encode(
    vae: AutoencoderKL, pictures: Sequence[NDArray[np.uint8]], *, batch_size: int = 16
) -> Float[torch.Tensor, "n channels height width"]:
    """Return the scaled posterior means of pictures of one size, float32 on the CPU.

    The mean, not a sample: the same picture has the same latent in every run.
    """
    means: list[torch.Tensor] = []
    for start in range(0, len(pictures), batch_size):
        images = to_batch(pictures[start : start + batch_size]).to(device=vae.device, dtype=vae.dtype)
        means.append(vae.encode(images).latent_dist.mean.float().cpu())
    return torch.cat(means) * _scaling_factor(vae)


@torch.no_grad()
def decode(
    vae: AutoencoderKL, latents: Float[torch.Tensor, "n channels height width"], *, batch_size: int = 16
) -> list[NDArray[np.uint8]]:
    """Return the pictures of scaled latents."""
    pictures: list[NDArray[np.uint8]] = []
    for part in latents.split(batch_size):
        scaled = (part / _scaling_factor(vae)).to(device=vae.device, dtype=vae.dtype)
        pictures.extend(to_pictures(vae.decode(scaled).sample))
    return pictures


def roundtrip(vae: AutoencoderKL, pictures: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Return pictures as the VAE gives them back: the form in which a U-Net could draw them at best."""
    return decode(vae, encode(vae, pictures))


def _scaling_factor(vae: AutoencoderKL) -> float:
    return cast("float", vae.config["scaling_factor"])
