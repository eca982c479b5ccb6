"""Trains the miniature from emoji art, exports what ships with the package, and measures it.

    (cd safegen/miniature/art_packages && npm ci)
    python -m flows.miniature --art safegen/miniature/art_packages --work .safegen/miniature --out safegen/miniature

With ``--retrained`` it trains the second U-Net instead, the baseline that never saw the restricted concept, on the
VAE and text tower that are in ``--out``.

Takes about two hours on two cores, forty minutes of them a U-Net. A run that was killed goes on where it was; stages
whose product is in ``--work`` are skipped. The U-Net is compiled, which needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from safegen.errors import SafegenError
from safegen.miniature.art import HELD_OUT_RENDERING, load_sprites
from safegen.miniature.training import build
from safegen.miniature.training.export import export_raw_set, export_retrained, export_weights
from safegen.miniature.training.measure import measure
from safegen.miniature.training.plan import SHIPPED_PLAN, TrainingPlan
from safegen.progress import progress_bar

# Results stay where the stages put them: products in the work folder, never in Prefect's storage.
_train_vae = task(name="train VAE", cache_policy=NO_CACHE)(build.build_vae)
_make_tokenizer = task(name="make tokenizer", cache_policy=NO_CACHE)(build.build_tokenizer)
_train_clip = task(name="train CLIP pair", cache_policy=NO_CACHE)(build.build_clip)
_train_unet = task(name="train U-Net", cache_policy=NO_CACHE)(build.build_unet)
_train_retrained = task(name="train U-Net without the concept", cache_policy=NO_CACHE)(build.build_retrained)
_export_retrained = task(name="export U-Net without the concept", cache_policy=NO_CACHE)(export_retrained)
_train_detector = task(name="train detector", cache_policy=NO_CACHE)(build.build_detector)
_make_raw_set = task(name="make raw set", cache_policy=NO_CACHE)(build.build_raw_set)
_export_weights = task(name="export weights", cache_policy=NO_CACHE)(export_weights)
_export_raw_set = task(name="export raw set", cache_policy=NO_CACHE)(export_raw_set)


@flow(name="miniature", validate_parameters=False)
def miniature(art_dir: Path, work_dir: Path, out_dir: Path, plan: TrainingPlan = SHIPPED_PLAN) -> Path:
    """Train, export and measure the miniature.

    Args:
        art_dir: Where ``npm ci`` installed the art packages.
        work_dir: Where training keeps checkpoints and products.
        out_dir: Receives ``weights`` and ``raw``.
        plan: Pool sizes, recipes and seeds.

    Returns:
        The folder of exported weights.
    """
    art, work, weights = build.load_art(art_dir), build.Work(work_dir), out_dir / "weights"
    _train_vae(art, work, plan)
    _make_tokenizer(work)
    _train_clip(art, work, plan)
    _train_unet(art, work, plan)
    _train_detector(art, work, plan)
    _make_raw_set(art, work, plan)
    _export_weights(work, weights, plan)
    _export_raw_set(work, out_dir / "raw")
    _measure(weights, art_dir)
    return weights


@flow(name="miniature without the concept", validate_parameters=False)
def retrained(art_dir: Path, work_dir: Path, out_dir: Path, plan: TrainingPlan = SHIPPED_PLAN) -> Path:
    """Train and export the U-Net that never saw the restricted concept.

    Args:
        art_dir: Where ``npm ci`` installed the art packages.
        work_dir: Where training keeps its checkpoint and product.
        out_dir: Has ``weights`` of the finished miniature, receives ``retrained``.
        plan: Pool size, recipe and seeds.

    Returns:
        The folder of exported weights.
    """
    art, work = build.load_art(art_dir), build.Work(work_dir)
    _train_retrained(art, out_dir / "weights" / "pipeline", work, plan)
    _export_retrained(work, out_dir / "retrained", plan)
    return out_dir / "retrained"


@task(name="measure", cache_policy=NO_CACHE)
def _measure(weights: Path, art_dir: Path) -> None:
    with progress_bar("measure", "pictures") as progress:
        measure(weights, load_sprites(art_dir, (HELD_OUT_RENDERING,)), on_batch=progress)


def main(arguments: list[str] | None = None) -> int:
    """Run the flow from the command line; the last line on stdout is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m flows.miniature", description=miniature.__doc__)
    parser.add_argument("--art", type=Path, required=True, help="folder in which npm ci installed the art")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and products")
    parser.add_argument("--out", type=Path, required=True, help="folder that receives weights/ and raw/")
    parser.add_argument(
        "--retrained", action="store_true", help="train the U-Net without the concept, into retrained/"
    )
    chosen = parser.parse_args(arguments)
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")  # 20 is little when busy
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    try:
        if chosen.retrained:
            print(json.dumps({"weights": str(retrained(chosen.art, chosen.work, chosen.out))}))  # noqa: T201
            return 0
        weights = miniature(chosen.art, chosen.work, chosen.out)
    except SafegenError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    quality = json.loads((weights / "quality.json").read_text())
    print(json.dumps({"weights": str(weights), "drawn": quality["drawn"]["all"]}))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
