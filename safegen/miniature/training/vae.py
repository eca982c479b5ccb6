"""Trains the miniature's VAE: 48 px pictures to 12 x 12 x 4 latents and back."""

# The annotations of diffusers and transformers are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch.nn import functional

from safegen.miniature.training.loop import Recipe, fit
from safegen.miniature.training.pool import PicturePool

VAE_RECIPE = Recipe(steps=4500, batch_size=16, learning_rate=2e-3, ema_decay=0.995)
_KL_WEIGHT = 1e-5
_EDGE_WEIGHT = 0.5


def new_vae(seed: int = 0) -> AutoencoderKL:
    """Return an untrained VAE of the miniature's architecture."""
    torch.manual_seed(seed)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=48,
    )


def train_vae(pool: PicturePool, checkpoint: Path, recipe: Recipe = VAE_RECIPE) -> AutoencoderKL:
    """Train the VAE and set its scaling factor so that latents have unit variance.

    Loss: L1 on pixels + 0.5 L1 on their differences (edges stay sharp) + 1e-5 KL.

    Args:
        pool: Pictures.
        checkpoint: Where progress is kept.
        recipe: Length and rates.
    """
    vae = new_vae(recipe.seed)

    def loss_of_step(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        del step
        images = pool.images(torch.randint(len(pool), (recipe.batch_size,), generator=generator))
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            decoded = vae.decode(posterior.sample(generator=generator)).sample.float()
        pixel, edge = functional.l1_loss(decoded, images), _edge_loss(decoded, images)
        kl = posterior.kl().float().mean()
        return pixel + _EDGE_WEIGHT * edge + _KL_WEIGHT * kl, {"pixel": pixel.item(), "kl": kl.item()}

    fit(vae, loss_of_step, recipe, checkpoint)
    vae.register_to_config(scaling_factor=1.0 / _latent_std(vae, pool))
    return vae


def _edge_loss(
    a: Float[torch.Tensor, "b 3 height width"], b: Float[torch.Tensor, "b 3 height width"]
) -> Float[torch.Tensor, ""]:
    return functional.l1_loss(a.diff(dim=-1), b.diff(dim=-1)) + functional.l1_loss(
        a.diff(dim=-2), b.diff(dim=-2)
    )


@torch.no_grad()
def _latent_std(vae: AutoencoderKL, pool: PicturePool) -> float:
    latents = vae.encode(pool.images(torch.arange(min(1024, len(pool))))).latent_dist.mean
    return round(float(latents.std()), 6)
