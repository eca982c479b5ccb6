"""Exports the trained miniature: diffusers folder, CLIP pair, detector, training record and model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from safegen.diffusion.int8_weights import save_int8
from safegen.errors import DataError
from safegen.miniature.art import DETECTOR_RENDERINGS, GENERATOR_RENDERINGS
from safegen.miniature.compose import PICTURE_SIZE_PX
from safegen.miniature.training.build import Work
from safegen.miniature.training.model_card import write_model_card
from safegen.miniature.training.plan import SHIPPED_PLAN, TrainingPlan
from safegen.miniature.training.unet import new_scheduler

LARGEST_EXPORT_BYTES = 20_000_000
_LONGEST_LOG = 200
_NETWORKS = ("vae", "clip", "unet", "detector")
_DTYPE = torch.float16


def export_weights(work: Work, weights: Path, plan: TrainingPlan = SHIPPED_PLAN) -> None:
    """Write what ships: fp16 safetensors, the ONNX detector, logs, record and card. What was there is replaced.

    Args:
        work: Finished training.
        weights: The folder to write; it appears only when it is whole.
        plan: What the training was done by.

    Raises:
        DataError: A product is missing, or the whole is larger than `LARGEST_EXPORT_BYTES`.
    """
    _check_finished(work)
    pending = weights.with_name(f"part-{weights.name}")
    shutil.rmtree(pending, ignore_errors=True)
    pending.mkdir(parents=True)
    _export_pipeline(work, pending / "pipeline")
    _export_clip(work, pending / "clip")
    shutil.copyfile(work.detector, pending / "detector.onnx")
    _export_record(work, pending / "training", plan)
    write_model_card(pending)
    _check_size(pending)
    shutil.rmtree(weights, ignore_errors=True)
    pending.rename(weights)


def export_retrained(work: Work, folder: Path, plan: TrainingPlan = SHIPPED_PLAN) -> None:
    """Write the U-Net that was trained without restricted concepts: int8 weights, configuration, log and record.

    Args:
        work: Finished training.
        folder: The folder to write. What was there is replaced.
        plan: What the training was done by.

    Raises:
        DataError: The training is not finished.
    """
    if not work.retrained.exists():
        raise DataError(f"export: {work.retrained} is missing; train the second U-Net to its end first")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    unet = UNet2DConditionModel.from_pretrained(work.retrained)
    save_int8(unet.state_dict(), folder / "unet.safetensors")
    shutil.copyfile(work.retrained / "config.json", folder / "config.json")
    _forget_origin(folder / "config.json")
    last = _export_log(work, "retrained", folder)
    _write_json(folder / "record.json", {"plan": asdict(plan.retrained), "last_step": last})


def export_raw_set(work: Work, folder: Path) -> None:
    """Write the raw image set. What was there is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(work.raw_set, folder)


def thinned(lines: list[dict[str, Any]], longest: int = _LONGEST_LOG) -> list[dict[str, Any]]:
    """Return at most `longest` lines of a training log, evenly chosen, first and last among them.

    A resumed training logs some steps again: the later line of a step stays.

    >>> log = [{"step": 0}, {"step": 1}, {"step": 2}, {"step": 2, "again": 1}]
    >>> thinned(log, 2)
    [{'step': 0}, {'step': 2, 'again': 1}]
    """
    by_step = {line["step"]: line for line in lines}
    kept = [by_step[step] for step in sorted(by_step)]
    if len(kept) <= longest:
        return kept
    return [kept[round(place * (len(kept) - 1) / (longest - 1))] for place in range(longest)]


def _check_finished(work: Work) -> None:
    for product in (work.vae, work.tokenizer, work.clip, work.unet, work.detector):
        if not product.exists():
            raise DataError(f"export: {product} is missing; train the miniature to its end first")


def _export_pipeline(work: Work, folder: Path) -> None:
    parts: dict[str, Any] = {  # diffusers annotates its pipelines more narrowly than what they take
        "vae": AutoencoderKL.from_pretrained(work.vae),
        "text_encoder": CLIPTextModel.from_pretrained(work.clip),
        "unet": UNet2DConditionModel.from_pretrained(work.unet),
        "tokenizer": CLIPTokenizer.from_pretrained(work.tokenizer),
        "scheduler": new_scheduler(),
        "safety_checker": None,
        "feature_extractor": None,
    }
    pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipeline.to(_DTYPE).save_pretrained(folder, safe_serialization=True)
    _copy_tokenizer_sources(work, folder / "tokenizer")
    _forget_origin(folder / "unet" / "config.json")
    _forget_origin(folder / "vae" / "config.json")


def _export_clip(work: Work, folder: Path) -> None:
    clip: Any = CLIPModel.from_pretrained(work.clip)  # transformers' `to` is untyped
    clip.to(_DTYPE).save_pretrained(folder)
    CLIPTokenizer.from_pretrained(work.tokenizer).save_pretrained(folder)
    _copy_tokenizer_sources(work, folder)
    half = [0.5, 0.5, 0.5]  # training fed pictures in [-1, 1]
    _write_json(
        folder / "preprocessor_config.json",
        {"image_mean": half, "image_std": half, "size": PICTURE_SIZE_PX, "crop_size": PICTURE_SIZE_PX},
    )


def _copy_tokenizer_sources(work: Work, folder: Path) -> None:
    """Add vocabulary and merges, which transformers before 5 reads instead of ``tokenizer.json``."""
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(work.tokenizer / name, folder / name)


def _forget_origin(config: Path) -> None:
    """Drop the path of the work folder, which diffusers notes."""
    content = json.loads(config.read_text())
    content.pop("_name_or_path", None)
    _write_json(config, content)


def _export_record(work: Work, folder: Path, plan: TrainingPlan) -> None:
    folder.mkdir()
    last: dict[str, Mapping[str, float]] = {}
    for network in _NETWORKS:
        last[network] = _export_log(work, network, folder)
    renderings = {"generator": GENERATOR_RENDERINGS, "judges": DETECTOR_RENDERINGS}
    _write_json(folder / "record.json", {"plan": asdict(plan), "renderings": renderings, "last_step": last})


def _export_log(work: Work, network: str, folder: Path) -> dict[str, Any]:
    """Write a network's training log, thinned, and return its last line."""
    log = work.checkpoint(network).with_suffix(".jsonl")
    lines = thinned([json.loads(line) for line in log.read_text().splitlines()])
    (folder / log.name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lines[-1]


def _check_size(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > LARGEST_EXPORT_BYTES:
        raise DataError(
            f"export: {size:,} bytes; expected at most {LARGEST_EXPORT_BYTES:,}; make a network smaller"
        )


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
