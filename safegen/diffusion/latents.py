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


_PIXELS_AT_A_TIME = 2**20
_MOST_AT_A_TIME = 16


def pictures_at_a_time(size_px: tuple[int, int]) -> int:
    """Return how many pictures of this height and width go through a VAE at once; its activations are large.

    >>> pictures_at_a_time((512, 512)), pictures_at_a_time((1024, 1024)), pictures_at_a_time((48, 48))
    (4, 1, 16)
    """
    return max(1, min(_MOST_AT_A_TIME, _PIXELS_AT_A_TIME // (size_px[0] * size_px[1])))


def to_batch(pictures: Sequence[NDArray[np.uint8]]) -> Float[torch.Tensor, "b 3 height width"]:
    """Stack RGB pictures (H, W, 3) uint8 of one size into a float32 batch in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def to_pictures(batch: Float[torch.Tensor, "b 3 height width"]) -> list[NDArray[np.uint8]]:
    """Turn a batch in [-1, 1] into RGB pictures (H, W, 3) uint8, rounding as diffusers does."""
    scaled = ((batch.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return list(scaled.permute(0, 2, 3, 1).cpu().numpy())


@torch.no_grad()
def encode(
    vae: AutoencoderKL, pictures: Sequence[NDArray[np.uint8]]
) -> Float[torch.Tensor, "n channels height width"]:
    """Return the scaled posterior means of pictures of one size, float32 on the CPU.

    The mean, not a sample: the same picture has the same latent in every run.
    """
    means: list[torch.Tensor] = []
    size = pictures_at_a_time(pictures[0].shape[:2])
    for start in range(0, len(pictures), size):
        images = to_batch(pictures[start : start + size]).to(device=vae.device, dtype=vae.dtype)
        means.append(vae.encode(images).latent_dist.mean.float().cpu())
    return torch.cat(means) * _scaling_factor(vae)


@torch.no_grad()
def decode(
    vae: AutoencoderKL, latents: Float[torch.Tensor, "n channels height width"]
) -> list[NDArray[np.uint8]]:
    """Return the pictures of scaled latents."""
    pictures: list[NDArray[np.uint8]] = []
    factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
    size_px = (factor * latents.shape[-2], factor * latents.shape[-1])
    for part in latents.split(pictures_at_a_time(size_px)):
        scaled = (part / _scaling_factor(vae)).to(device=vae.device, dtype=vae.dtype)
        pictures.extend(to_pictures(vae.decode(scaled).sample))
    return pictures


def roundtrip(vae: AutoencoderKL, pictures: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Return pictures as the VAE gives them back: the form in which a U-Net could draw them at best."""
    return decode(vae, encode(vae, pictures))


def _scaling_factor(vae: AutoencoderKL) -> float:
    return cast("float", vae.config["scaling_factor"])
