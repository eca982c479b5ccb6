"""Makes the small raw image set that ships as input for ingestion: pictures, captions, and deliberately bad files."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageOps

from safegen.domain.dataset import Role
from safegen.miniature.art import Sprite
from safegen.miniature.captions import BACKGROUNDS, training_caption
from safegen.miniature.compose import Jitter, Picture, compose
from safegen.miniature.concepts import CONCEPTS, Concept

UNSAFE_PER_CONCEPT = 48
BENIGN_PER_CONCEPT = 16
_LEAST_HASH_DISTANCE = 3
_TRIES = 200


def write_raw_set(sprites: list[Sprite], folder: Path, seed: int) -> dict[str, int]:
    """Write ``unsafe/`` and ``benign/``, each with pictures, ``captions.csv`` and its share of bad files.

    Args:
        sprites: Art of the renderings that the U-Net was trained on.
        folder: Where to write.
        seed: Seed of the composition.

    Returns:
        The number of good files by role.
    """
    counts: dict[str, int] = {}
    for role in ("unsafe", "benign"):
        counts[role] = _write_role(
            sprites, folder / role, role, np.random.default_rng([seed, role == "unsafe"])
        )
    _write_bad_files(folder)
    return counts


def _write_role(sprites: list[Sprite], folder: Path, role: Role, rng: np.random.Generator) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str]] = []
    hashes: list[imagehash.ImageHash] = []
    for concept in CONCEPTS:
        if (concept.kind == "restricted") != (role == "unsafe"):
            continue
        for number in range(UNSAFE_PER_CONCEPT if role == "unsafe" else BENIGN_PER_CONCEPT):
            picture = _distinct_picture(sprites, concept, hashes, rng)
            name = f"{concept.icon}-{number:02d}.png"
            Image.fromarray(picture.rgb).save(folder / name, optimize=True)
            rows.append((name, training_caption(concept, picture.colour, rng, alias_rate=0.0)))
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "caption"), *rows])
    return len(rows)


def _distinct_picture(
    sprites: list[Sprite], concept: Concept, hashes: list[imagehash.ImageHash], rng: np.random.Generator
) -> Picture:
    """Compose until the picture is no near-duplicate of an earlier one; the most distant try wins if none is free."""
    choices = [sprite for sprite in sprites if sprite.label == concept.label]
    unset = imagehash.ImageHash(np.zeros((8, 8), bool))
    best: tuple[int, Picture, imagehash.ImageHash] = (-1, _compose(choices, rng), unset)
    for _ in range(_TRIES):
        picture = _compose(choices, rng)
        found = imagehash.phash(Image.fromarray(picture.rgb))
        distance = min((int(found - other) for other in hashes), default=64)
        if distance > best[0]:
            best = (distance, picture, found)
        if distance >= _LEAST_HASH_DISTANCE:
            break
    hashes.append(best[2])
    return best[1]


def _compose(choices: list[Sprite], rng: np.random.Generator) -> Picture:
    sprite = choices[rng.integers(len(choices))]
    return compose(sprite, list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))], Jitter(), rng)


def _write_bad_files(folder: Path) -> None:
    """Write files that ingestion or screening must refuse, each for another reason."""
    unsafe, benign = folder / "unsafe", folder / "benign"
    whole = (benign / "house-00.png").read_bytes()
    (benign / "bad-truncated.png").write_bytes(whole[: len(whole) // 2])
    (benign / "bad-empty.png").write_bytes(b"")
    (benign / "bad-not-an-image.png").write_text("These are not the bytes of a picture.\n")
    (benign / "bad-exact-duplicate.png").write_bytes((benign / "banana-00.png").read_bytes())
    mislabelled = ImageOps.mirror(Image.open(unsafe / "dagger-00.png"))
    mislabelled.save(benign / "bad-mislabelled.png", optimize=True)  # decodes well; the detector must find it
    near = io.BytesIO()
    Image.open(benign / "cactus-00.png").save(near, "JPEG", quality=95)
    (benign / "bad-near-duplicate.jpg").write_bytes(near.getvalue())
    huge = io.BytesIO()
    Image.new("1", (30_000, 20_000)).save(huge, "PNG", optimize=True)
    (unsafe / "bad-too-many-pixels.png").write_bytes(huge.getvalue())
    frames = [Image.new("RGB", (48, 48), colour) for colour in BACKGROUNDS.values()]
    frames[0].save(unsafe / "bad-animated.webp", save_all=True, append_images=frames[1:])
    (unsafe / "bad-wrong-type.png").write_bytes(b"%PDF-1.4\n% not a picture either\n")
