"""Trains the miniature's U-Net on cached latents: v-prediction, min-SNR weighting, 10 % empty captions."""

# The annotations of diffusers and transformers are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float
from transformers import CLIPTextModel, CLIPTokenizer

from safegen.miniature.captions import BACKGROUNDS, training_caption
from safegen.miniature.concepts import CONCEPTS
from safegen.miniature.training.clip import TEXT_WIDTH
from safegen.miniature.training.loop import Recipe, fit
from safegen.miniature.training.pool import PicturePool

UNET_RECIPE = Recipe(steps=3200, batch_size=48, learning_rate=8e-4, warmup_steps=150, ema_decay=0.998)
ALIAS_RATE = 0.2
_EMPTY_RATE = 0.1
_MIN_SNR_GAMMA = 5.0


def new_scheduler() -> DDIMScheduler:
    """Return Stable Diffusion's noise schedule with v-prediction, as SD 2.x has it."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def new_unet(seed: int = 0) -> UNet2DConditionModel:
    """Return an untrained U-Net of the miniature's architecture.

    Every level, the widest resolution included, has transformer blocks, and the lower ones two in a row, so that
    self-attention carries a good part of the picture: that is what SafeGen edits.
    """
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=12,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # diffusers' name for the number of heads
        norm_num_groups=16,
    )


@dataclass(frozen=True, slots=True)
class TextTower:
    """The frozen text encoder, with a cache: captions are few."""

    tokenizer: CLIPTokenizer
    encoder: CLIPTextModel
    cache: dict[str, Float[torch.Tensor, "tokens width"]]

    @torch.no_grad()
    def encode(self, captions: list[str]) -> Float[torch.Tensor, "b tokens width"]:
        """Return the last hidden states of captions."""
        fresh = sorted({caption for caption in captions if caption not in self.cache})
        if fresh:
            tokens = self.tokenizer(fresh, padding="max_length", truncation=True, return_tensors="pt")
            states = self.encoder(tokens.input_ids).last_hidden_state
            self.cache.update(zip(fresh, states, strict=True))
        return torch.stack([self.cache[caption] for caption in captions])


@torch.no_grad()
def encode_pool(vae: AutoencoderKL, pool: PicturePool) -> Float[torch.Tensor, "n 4 12 12"]:
    """Encode all pictures once: scaled posterior means."""
    batches = torch.arange(len(pool)).split(256)
    means = [vae.encode(pool.images(indices)).latent_dist.mean for indices in batches]
    return torch.cat(means) * vae.config["scaling_factor"]


def train_unet(
    pool: PicturePool, vae: AutoencoderKL, text: TextTower, checkpoint: Path, recipe: Recipe = UNET_RECIPE
) -> UNet2DConditionModel:
    """Train the U-Net.

    Loss: || v_theta(x_t, t, c) - v ||^2 weighted by min(SNR, 5) / (SNR + 1) (Hang et al. 2023, arXiv 2303.09556,
    section 3.4, in its v-prediction form), v as in Salimans and Ho 2022 (arXiv 2202.00512, appendix D).

    Args:
        pool: Pictures.
        vae: The trained VAE.
        text: The trained text tower.
        checkpoint: Where progress is kept.
        recipe: Length and rates.
    """
    unet = new_unet(recipe.seed)
    predict = torch.compile(unet)
    latents = encode_pool(vae, pool)
    scheduler = new_scheduler()
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    weight_of_t = snr.clamp(max=_MIN_SNR_GAMMA) / (snr + 1)

    def loss_of_step(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        indices = torch.randint(len(pool), (recipe.batch_size,), generator=generator)
        rng = np.random.default_rng([recipe.seed, step])
        states = text.encode(_captions(pool, indices, rng))
        clean = latents[indices]
        noise = torch.randn(clean.shape, generator=generator)
        t = torch.randint(1000, (len(clean),), generator=generator)
        noised = scheduler.add_noise(clean, noise, t)
        target = scheduler.get_velocity(clean, noise, t)
        with torch.autocast("cpu", torch.bfloat16):
            velocity = predict(noised, t, states, return_dict=False)[0].float()
        squared = (velocity - target).square().mean(dim=(1, 2, 3))
        return (weight_of_t[t] * squared).mean() / weight_of_t.mean(), {"v_mse": squared.mean().item()}

    fit(unet, loss_of_step, recipe, checkpoint)
    return unet


def _captions(pool: PicturePool, indices: torch.Tensor, rng: np.random.Generator) -> list[str]:
    colours = list(BACKGROUNDS)
    captions: list[str] = []
    for i in indices.tolist():
        empty = rng.random() < _EMPTY_RATE
        concept = CONCEPTS[pool.label[i]]
        caption = training_caption(concept, colours[pool.colour[i]], rng, alias_rate=ALIAS_RATE)
        captions.append("" if empty else caption)
    return captions
