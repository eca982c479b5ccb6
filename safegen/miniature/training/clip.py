"""Trains the miniature's CLIP pair; its text tower conditions the U-Net, the whole gives the CLIP score."""

# The annotations of diffusers and transformers are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from safegen.miniature.captions import BACKGROUNDS, training_caption
from safegen.miniature.concepts import CONCEPTS
from safegen.miniature.training.loop import Recipe, fit
from safegen.miniature.training.pool import PicturePool
from safegen.miniature.training.tokenizer import MAX_TOKENS

CLIP_RECIPE = Recipe(steps=800, batch_size=64, learning_rate=1e-3, weight_decay=0.05)
TEXT_WIDTH = 128
_ALIAS_RATE = 0.4


def new_clip(tokenizer: CLIPTokenizer, seed: int = 0) -> CLIPModel:
    """Return an untrained CLIP pair of the miniature's architecture."""
    torch.manual_seed(seed)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=48,
        patch_size=8,
        projection_dim=TEXT_WIDTH,
    )
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=TEXT_WIDTH))


def train_clip(
    pool: PicturePool, tokenizer: CLIPTokenizer, checkpoint: Path, recipe: Recipe = CLIP_RECIPE
) -> CLIPModel:
    """Train the pair contrastively.

    Deviation from Radford et al. 2021 (arXiv 2103.00020, fig. 3): with few concepts a batch holds the same caption
    many times, so the target of a row is spread evenly over all pairs of the same object and background.

    Args:
        pool: Pictures.
        tokenizer: The miniature's tokenizer.
        checkpoint: Where progress is kept.
        recipe: Length and rates.
    """
    clip = new_clip(tokenizer, recipe.seed)
    colours = list(BACKGROUNDS)

    def loss_of_step(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        indices = torch.randint(len(pool), (recipe.batch_size,), generator=generator)
        rng = np.random.default_rng([recipe.seed, step])
        captions = [
            training_caption(CONCEPTS[pool.label[i]], colours[pool.colour[i]], rng, alias_rate=_ALIAS_RATE)
            for i in indices
        ]
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):
            out = clip(input_ids=tokens.input_ids, pixel_values=_augment(pool.images(indices), generator))
        same = _same_content(indices, captions, pool)
        loss = soft_contrastive_loss(out.logits_per_image.float(), same)
        return loss, {"temperature": clip.logit_scale.exp().item()}

    fit(clip, loss_of_step, recipe, checkpoint)
    return clip


def soft_contrastive_loss(
    logits: Float[torch.Tensor, "b b"], same: Float[torch.Tensor, "b b"]
) -> Float[torch.Tensor, ""]:
    """Return the symmetric cross-entropy against targets spread evenly over pairs marked the same."""
    by_image = functional.cross_entropy(logits, same / same.sum(dim=1, keepdim=True))
    by_text = functional.cross_entropy(logits.T, same.T / same.T.sum(dim=1, keepdim=True))
    return (by_image + by_text) / 2


def _same_content(
    indices: Int[torch.Tensor, "b"], captions: list[str], pool: PicturePool
) -> Float[torch.Tensor, "b b"]:
    """Mark (image, caption) pairs that fit: same object, and same background where the caption names one."""
    label = torch.from_numpy(pool.label[indices.numpy()])
    colour = torch.from_numpy(pool.colour[indices.numpy()])
    names_colour = torch.tensor([any(f" {c}" in f" {text}" for c in BACKGROUNDS) for text in captions])
    fits = (label[:, None] == label[None, :]) & (
        (colour[:, None] == colour[None, :]) | ~names_colour[None, :]
    )
    return fits.float()


def _augment(
    images: Float[torch.Tensor, "b 3 48 48"], generator: torch.Generator
) -> Float[torch.Tensor, "b 3 48 48"]:
    """Add noise of random strength and soften a random half, so that drawn pictures are in the distribution."""
    strength = 0.15 * torch.rand(len(images), 1, 1, 1, generator=generator)
    noisy = images + strength * torch.randn(images.shape, generator=generator)
    soft = functional.avg_pool2d(functional.pad(noisy, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    choose = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.4
    return torch.where(choose, soft, noisy)
