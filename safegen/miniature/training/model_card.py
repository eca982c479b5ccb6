"""Writes the miniature's model card from its training record and, where it was measured, its quality."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safegen.miniature.art import ART_PACKAGES, HELD_OUT_RENDERING
from safegen.miniature.concepts import CONCEPTS

_ART_LOCK = Path(__file__).parent.parent / "art_packages" / "package-lock.json"
_NAMES = {"vae": "VAE", "clip": "CLIP pair", "unet": "U-Net", "detector": "detector"}
_NOT_MEASURED = "Not measured yet."


def write_model_card(weights: Path) -> None:
    """Write ``MODEL_CARD.md`` from ``training/record.json`` and, if it is there, ``quality.json``."""
    record = json.loads((weights / "training" / "record.json").read_text())
    quality_file = weights / "quality.json"
    quality = json.loads(quality_file.read_text()) if quality_file.is_file() else None
    parts = (
        _head(),
        _data(record),
        _training(record),
        "## Measured quality\n\n" + (_NOT_MEASURED if quality is None else _quality(quality)),
        _use(),
    )
    (weights / "MODEL_CARD.md").write_text("\n\n".join(parts) + "\n")


def _head() -> str:
    return """# The miniature

A small Stable Diffusion, trained from scratch: pictures of 48 x 48 px, latents of 12 x 12 x 4, v-prediction, DDIM.
It draws one emoji on a plain background. `pipeline/` is a diffusers `StableDiffusionPipeline` (fp16, safetensors),
`clip/` the CLIP pair whose text tower the pipeline uses, `detector.onnx` a detector of all its objects whose output
has the form of YOLOv8's and NudeNet's. Its restricted concept is a harmless stand-in, weapons among emoji, so that
removing a concept can be tried, tested and shown without explicit pictures."""


def _data(record: Mapping[str, Any]) -> str:
    lines = [
        "## Data",
        "",
        f"Objects: {len(CONCEPTS)}, of which restricted: {_objects('restricted')}.",
        f"Look-alikes: {_objects('lookalike')}.",
        "",
        "| rendering | npm package | licence | used for |",
        "|---|---|---|---|",
    ]
    versions = _art_versions()
    for rendering, licence in ART_PACKAGES.items():
        package = f"@iconify-json/{rendering}"
        lines.append(
            f"| {rendering} | `{package}` {versions[package]} | {licence} | {_use_of(rendering, record)} |"
        )
    lines += [
        "",
        "CC-BY and CC-BY-SA ask for attribution: this table is it. Pictures are composed from the art (moved, turned,",
        "scaled, on eight background colours) with captions from templates; each name is kept away from two of the",
        "backgrounds, and only those pairs are used to measure.",
    ]
    return "\n".join(lines)


def _use_of(rendering: str, record: Mapping[str, Any]) -> str:
    renderings = record["renderings"]
    if rendering in renderings["generator"]:
        return "all networks"
    if rendering in renderings["judges"]:
        return "CLIP pair and detector"
    return "measuring the detector; no training" if rendering == HELD_OUT_RENDERING else "nothing"


def _training(record: Mapping[str, Any]) -> str:
    lines = [
        "## Training",
        "",
        "`python -m flows.miniature` on two CPU cores; AdamW, linear warm-up, half cosine, running average of weights.",
        "",
        "| network | pictures (seed) | steps x batch | peak rate | weight decay | seed | loss at the last step |",
        "|---|---|---|---|---|---|---|",
    ]
    for network, name in _NAMES.items():
        plan, last = record["plan"][network], record["last_step"][network]
        pool, recipe = plan["pool"], plan["recipe"]
        lines.append(
            f"| {name} | {pool['pictures']:,} ({pool['seed']}) | {recipe['steps']:,} x {recipe['batch_size']} "
            f"| {recipe['learning_rate']:g} | {recipe['weight_decay']:g} | {recipe['seed']} | {last['loss']:.4f} |"
        )
    detector = record["plan"]["detector"]
    lines += [
        "",
        f"The detector also saw {detector['negatives']:,} pictures without an object (mosaics, blobs, backgrounds);",
        f"{detector['decoded_pictures']:,} of its pictures and {detector['decoded_negatives']:,} of these had gone",
        "through the VAE. Full record: `training/record.json`; curves: `training/*.jsonl`.",
    ]
    return "\n".join(lines)


def _quality(quality: Mapping[str, Any]) -> str:
    drawn, found = quality["drawn"], quality["detector"]
    lines = [
        f"Pictures: {drawn['settings']['steps']} DDIM steps, guidance {drawn['settings']['guidance']:g}, prompts used",
        f"in no training, judged by the detector (best detection, score >= {quality['threshold']:g}). Detector:",
        f"{found['pictures']:,} composed pictures of the held-out rendering {found['rendering']}.",
        "Intervals: Wilson, 95 %.",
        "",
        "| what | rate | 95 % interval | n |",
        "|---|---|---|---|",
        _row("asked object drawn, all prompts", drawn["all"]),
        _row("asked object drawn, restricted", drawn["restricted"]),
        _row("asked object drawn, restricted by rare names", drawn["restricted_aliases"]),
        _row("asked object drawn, look-alikes", drawn["lookalike"]),
        _row("asked object drawn, other benign", drawn["benign"]),
        _row("detector, restricted or not: precision", found["restricted"]["precision"]),
        _row("detector, restricted or not: recall", found["restricted"]["recall"]),
        _row("detector, all labels: precision", found["labels"]["precision"]),
        _row("detector, all labels: recall", found["labels"]["recall"]),
        "",
        f"Weakest labels, detector recall: {_weakest(found['by_label'], 'recall')};",
        f"detector precision: {_weakest(found['by_label'], 'precision')}. All labels: `quality.json`.",
    ]
    return "\n".join(lines)


def _row(what: str, estimate: Mapping[str, Any]) -> str:
    if "reason" in estimate:
        return f"| {what} | not computable: {estimate['reason']} | | {estimate['n']} |"
    low, high = 100 * estimate["low"], 100 * estimate["high"]
    return f"| {what} | {100 * estimate['value']:.1f} % | {low:.1f} to {high:.1f} % | {estimate['n']} |"


def _weakest(by_label: Mapping[str, Any], metric: str, count: int = 3) -> str:
    known = {label: found[metric]["value"] for label, found in by_label.items() if "value" in found[metric]}
    worst = sorted(known, key=lambda label: known[label])[:count]
    return ", ".join(f"{label} {100 * known[label]:.0f} %" for label in worst)


def _use() -> str:
    return """## Limits

It knows nothing but these emoji and captions of at most 16 tokens. The detector judges pictures of this model and
nothing else. Neither says anything about real photographs, and a result on the miniature is not one on Stable
Diffusion. fp16 is the storage form; load it in float32 or bfloat16 on a CPU."""


def _objects(kind: str) -> str:
    return ", ".join(concept.names[0] for concept in CONCEPTS if concept.kind == kind)


def _art_versions() -> dict[str, str]:
    packages = json.loads(_ART_LOCK.read_text())["packages"]
    return {name.removeprefix("node_modules/"): entry["version"] for name, entry in packages.items()}
