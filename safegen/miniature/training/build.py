"""Trains all of the miniature, stage by stage, in one work folder.

    vae ─┬────────────────────┐
    tokenizer ── clip ── unet │
                              └─ detector       raw set

A stage checkpoints inside the work folder while it trains and goes on from there after a kill; a stage whose product
is there is skipped. A product appears under its name only when it is whole.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers import AutoencoderKL
from jaxtyping import UInt8
from transformers import CLIPTextModel, CLIPTokenizer

from safegen.diffusion.latents import roundtrip
from safegen.miniature.art import DETECTOR_RENDERINGS, GENERATOR_RENDERINGS, Sprite, load_sprites
from safegen.miniature.concepts import RESTRICTED_LABELS
from safegen.miniature.training.clip import train_clip
from safegen.miniature.training.detector import export_onnx, train_detector
from safegen.miniature.training.negatives import make_negatives
from safegen.miniature.training.plan import SHIPPED_PLAN, PoolPlan, TrainingPlan
from safegen.miniature.training.pool import PicturePool, make_pool
from safegen.miniature.training.raw_set import write_raw_set
from safegen.miniature.training.tokenizer import save_tokenizer
from safegen.miniature.training.unet import TextTower, train_unet
from safegen.miniature.training.vae import train_vae

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Art:
    """Emoji to compose pictures of.

    Attributes:
        generator: What VAE and U-Net are trained on, and the raw set is made of.
        judges: What CLIP pair and detector are trained on.
    """

    generator: list[Sprite]
    judges: list[Sprite]


@dataclass(frozen=True, slots=True)
class Work:
    """Where training keeps its checkpoints (``<network>.pt``), logs (``<network>.jsonl``) and products."""

    folder: Path

    @property
    def vae(self) -> Path:
        """Folder of the trained VAE."""
        return self.folder / "vae"

    @property
    def tokenizer(self) -> Path:
        """Folder of the tokenizer."""
        return self.folder / "tokenizer"

    @property
    def clip(self) -> Path:
        """Folder of the trained CLIP pair."""
        return self.folder / "clip"

    @property
    def unet(self) -> Path:
        """Folder of the trained U-Net."""
        return self.folder / "unet"

    @property
    def retrained(self) -> Path:
        """Folder of the U-Net that was trained without restricted concepts."""
        return self.folder / "retrained"

    @property
    def detector(self) -> Path:
        """ONNX file of the trained detector."""
        return self.folder / "detector.onnx"

    @property
    def raw_set(self) -> Path:
        """Folder of the raw image set."""
        return self.folder / "raw"

    def checkpoint(self, network: str) -> Path:
        """File of a network's unfinished training; its log lies beside it."""
        return self.folder / f"{network}.pt"


def load_art(art_dir: Path) -> Art:
    """Rasterise the emoji of the installed art packages.

    Args:
        art_dir: Where ``npm ci`` was run.

    Raises:
        DataError: A package is not installed.
    """
    return Art(load_sprites(art_dir, GENERATOR_RENDERINGS), load_sprites(art_dir, DETECTOR_RENDERINGS))


def train_all(art: Art, work: Work, plan: TrainingPlan = SHIPPED_PLAN) -> None:
    """Train every network and make the raw set, in order; what is finished is skipped."""
    build_vae(art, work, plan)
    build_tokenizer(work)
    build_clip(art, work, plan)
    build_unet(art, work, plan)
    build_detector(art, work, plan)
    build_raw_set(art, work, plan)


def build_vae(art: Art, work: Work, plan: TrainingPlan) -> None:
    """Train the VAE on generator art."""

    def make(folder: Path) -> None:
        pool = _pool(art.generator, plan.vae.pool)
        train_vae(pool, work.checkpoint("vae"), plan.vae.recipe).save_pretrained(folder)

    _make_once(work.vae, make)


def build_tokenizer(work: Work) -> None:
    """Learn the tokenizer from all captions."""
    _make_once(work.tokenizer, save_tokenizer)


def build_clip(art: Art, work: Work, plan: TrainingPlan) -> None:
    """Train the CLIP pair on the judges' art."""

    def make(folder: Path) -> None:
        pool = _pool(art.judges, plan.clip.pool)
        clip = train_clip(pool, _tokenizer(work), work.checkpoint("clip"), plan.clip.recipe)
        clip.save_pretrained(folder)

    _make_once(work.clip, make)


def build_unet(art: Art, work: Work, plan: TrainingPlan) -> None:
    """Train the U-Net on latents of generator art and states of the text tower."""

    def make(folder: Path) -> None:
        pool = _pool(art.generator, plan.unet.pool)
        encoder = CLIPTextModel.from_pretrained(work.clip).eval()
        text = TextTower(_tokenizer(work), encoder, {})
        unet = train_unet(pool, _vae(work), text, work.checkpoint("unet"), plan.unet.recipe)
        unet.save_pretrained(folder)

    _make_once(work.unet, make)


def build_retrained(art: Art, pipeline: Path, work: Work, plan: TrainingPlan) -> None:
    """Train a second U-Net on pictures without restricted concepts: the baseline "retrained on censored data".

    Text tower and VAE stay those of the finished miniature, as they stay in models retrained on filtered pictures.

    Args:
        art: Emoji to compose pictures of.
        pipeline: The exported miniature.
        work: Where progress and product are kept.
        plan: What to train by.
    """

    def make(folder: Path) -> None:
        allowed = [sprite for sprite in art.generator if sprite.label not in RESTRICTED_LABELS]
        vae = AutoencoderKL.from_pretrained(pipeline / "vae", torch_dtype=torch.float32)
        encoder = CLIPTextModel.from_pretrained(pipeline / "text_encoder", dtype=torch.float32).eval()
        text = TextTower(CLIPTokenizer.from_pretrained(pipeline / "tokenizer"), encoder, {})
        pool = _pool(allowed, plan.retrained.pool)
        checkpoint = work.checkpoint("retrained")
        train_unet(
            pool, cast("AutoencoderKL", vae).eval(), text, checkpoint, plan.retrained.recipe
        ).save_pretrained(folder)

    _make_once(work.retrained, make)


def build_detector(art: Art, work: Work, plan: TrainingPlan) -> None:
    """Train the detector on the judges' art, part of it as the VAE gives it back."""

    def make(path: Path) -> None:
        ours = plan.detector
        pool = _pool(art.judges, ours.pool)
        negatives = make_negatives(pool, ours.negatives, ours.negatives_seed)
        vae = _vae(work)
        _decode_first(vae, pool.rgb, ours.decoded_pictures)
        _decode_first(vae, negatives, ours.decoded_negatives)
        detector = train_detector(pool, negatives, work.checkpoint("detector"), ours.recipe)
        export_onnx(detector, path)

    _make_once(work.detector, make)


def build_raw_set(art: Art, work: Work, plan: TrainingPlan) -> None:
    """Compose the raw image set that ingestion begins with."""
    _make_once(work.raw_set, lambda folder: write_raw_set(art.generator, folder, plan.raw_set_seed))


def _make_once(product: Path, make: Callable[[Path], object]) -> None:
    """Make a file or folder under another name and move it in place when it is whole; skip what is there."""
    if product.exists():
        _log.info("%s: finished before", product.name)
        return
    product.parent.mkdir(parents=True, exist_ok=True)
    pending = product.with_name(f"part-{product.name}")
    if pending.is_dir():
        shutil.rmtree(pending)
    make(pending)
    pending.rename(product)


def _pool(sprites: list[Sprite], plan: PoolPlan) -> PicturePool:
    return make_pool(sprites, plan.pictures, plan.jitter, plan.seed)


def _decode_first(vae: AutoencoderKL, pictures: UInt8[np.ndarray, "n 48 48 3"], count: int) -> None:
    """Replace the first pictures by what the VAE makes of them."""
    with torch.autocast("cpu", torch.bfloat16):
        pictures[:count] = np.stack(roundtrip(vae, list(pictures[:count])))


def _vae(work: Work) -> AutoencoderKL:
    return cast("AutoencoderKL", AutoencoderKL.from_pretrained(work.vae)).eval()


def _tokenizer(work: Work) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(work.tokenizer)
