"""What the miniature is trained with: pool sizes, placements, seeds and recipes, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from safegen.miniature.compose import Jitter
from safegen.miniature.training.clip import CLIP_RECIPE
from safegen.miniature.training.detector import DETECTOR_RECIPE
from safegen.miniature.training.loop import Recipe
from safegen.miniature.training.unet import UNET_RECIPE
from safegen.miniature.training.vae import VAE_RECIPE


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """One pool of composed pictures.

    Attributes:
        pictures: How many.
        jitter: Limits of placement.
        seed: Seed of the composition.
    """

    pictures: int
    jitter: Jitter
    seed: int


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """How one network is trained: its pictures and its recipe."""

    pool: PoolPlan
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class DetectorPlan:
    """How the detector is trained.

    A part of its pictures goes through the trained VAE first, since it will judge pictures that come out of it.

    Attributes:
        pool: Pictures of objects.
        recipe: Length and rates.
        negatives: Number of pictures without an object.
        negatives_seed: Seed of their composition.
        decoded_pictures: How many pictures of objects go through the VAE.
        decoded_negatives: How many of those without.
    """

    pool: PoolPlan
    recipe: Recipe
    negatives: int
    negatives_seed: int
    decoded_pictures: int
    decoded_negatives: int


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Everything that decides what the trained miniature is, besides the art.

    Generators (VAE, U-Net) see few placements of three renderings, so that a small U-Net draws them well; judges
    (CLIP pair, detector) see more placements and renderings than will ever be drawn. The retrained U-Net is trained as
    the shipped one is, on a pool without restricted concepts, as a model retrained on censored data would be.
    """

    vae: NetworkPlan
    clip: NetworkPlan
    unet: NetworkPlan
    detector: DetectorPlan
    raw_set_seed: int
    retrained: NetworkPlan


SHIPPED_PLAN: Final = TrainingPlan(
    vae=NetworkPlan(PoolPlan(12_000, Jitter(), seed=1), VAE_RECIPE),
    clip=NetworkPlan(PoolPlan(20_000, Jitter((30, 46), 12, 4, 0.0), seed=2), CLIP_RECIPE),
    unet=NetworkPlan(PoolPlan(16_000, Jitter(), seed=3), UNET_RECIPE),
    detector=DetectorPlan(
        pool=PoolPlan(30_000, Jitter((26, 46), 20, 5, 0.5), seed=4),
        recipe=DETECTOR_RECIPE,
        negatives=8_000,
        negatives_seed=5,
        decoded_pictures=8_000,
        decoded_negatives=2_000,
    ),
    raw_set_seed=7,
    retrained=NetworkPlan(PoolPlan(16_000, Jitter(), seed=3), UNET_RECIPE),
)
"""The plan that the shipped weights were trained by."""
