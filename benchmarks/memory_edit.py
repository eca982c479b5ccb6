"""Memory of SD-1.4's edit: calculated by parts at 512 px, and the same calculation against a measured peak at 128 px.

Each peak is measured in a process of its own: what the edit adds to the resident memory of the interpreter with all
libraries loaded, weights included. `memory_edit` is calculated over measured; `memory_edit_ckpt` is our peak with
gradient checkpointing over that of the published loop (which always checkpoints).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel

from benchmarks.edit_sd import sd14
from benchmarks.published_loop import PublishedLoop, Step
from benchmarks.results import Comparison, record
from safegen.defences.safegen import SafeGenSettings, TripletLatents, edit_unet
from safegen.diffusion.edit_memory import EditMemory, edit_memory
from safegen.diffusion.noise_schedule import noise_schedule
from tests.true_architectures import SD14_UNET

MIB, GIB = 2**20, 2**30
SIDES = ("plain", "checkpointed", "published")


def calculated(size_px: int, **more: object) -> EditMemory:
    """Calculate SD-1.4's edit of one triplet a pass."""
    return edit_memory(lambda: UNet2DConditionModel(**SD14_UNET), latent_size=size_px // 8, **more)  # type: ignore[arg-type]


def run_side(side: str, size_px: int) -> None:
    """Do one optimiser step and print what it added to the peak, in MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model, text = sd14(size_px)
    unsafe, censored, benign = (torch.randn(1, 4, size_px // 8, size_px // 8) for _ in range(3))
    if side == "published":
        picture = torch.rand(1, 3, size_px, size_px) * 2 - 1
        alphas = noise_schedule(dict(model.scheduler.config)).alphas_cumprod
        given = Step((picture, picture, picture), torch.tensor([500]), unsafe, censored, text.states)
        PublishedLoop(model.unet, model.vae, alphas, learning_rate=1e-5).step([given])
    else:
        settings = SafeGenSettings(steps=1, accumulation=1, gradient_checkpointing=side == "checkpointed")
        edit_unet(cast("Any", model), TripletLatents(unsafe, censored, benign, text), settings, seed=0)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def measured(side: str, size_px: int) -> float:
    """Return the peak of one side in MiB."""
    command = [sys.executable, "-m", "benchmarks.memory_edit", "--side", side, "--size-px", str(size_px)]
    root = Path(__file__).resolve().parents[1]
    return float(subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout)


def table(sizes: dict[str, EditMemory]) -> Iterator[str]:
    """Yield the lines of a table of parts, in GiB."""
    names = ("weights", "gradients", "optimizer", "average", "activations", "total")
    yield "| | " + " | ".join(names) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for title, memory in sizes.items():
        yield f"| {title} | " + " | ".join(f"{getattr(memory, name) / GIB:.2f}" for name in names) + " |"


def main() -> None:
    """Calculate, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--size-px", type=int, default=128)
    asked = parser.parse_args()
    if asked.side:
        run_side(asked.side, asked.size_px)
        return
    sizes = {
        "512 px, float32": calculated(512),
        "512 px, bf16 autocast": calculated(512, autocast=torch.bfloat16),
        "512 px, float32, checkpointing": calculated(512, gradient_checkpointing=True),
        f"{asked.size_px} px, float32": calculated(asked.size_px),
    }
    parts = "\n".join(table(sizes))
    peaks = {side: measured(side, asked.size_px) for side in SIDES}
    vae_mib = 83_653_863 * 4 / MIB
    total = calculated(asked.size_px).total / MIB + vae_mib
    record(
        "memory_edit",
        Comparison(total, peaks["plain"], "MiB", 1),
        compared="SD-1.4's edit at batch 1: calculated by parts (`safegen.diffusion.edit_memory`, and the VAE) against "
        f"the peak of the resident memory at {asked.size_px} px, without checkpointing. Calculated, in GiB (the VAE's "
        f"0.31 and the text encoder's 0.46 come on top):\n\n{parts}",
        bar="512 px within 24 GB",
    )
    record(
        "memory_edit_ckpt",
        Comparison(peaks["checkpointed"], peaks["published"], "MiB", 1),
        compared=f"Peak memory of our step with checkpointing against the published loop's, at {asked.size_px} px, "
        "float32, both with U-Net and VAE in memory.",
        bar="<= 1",
    )


if __name__ == "__main__":
    main()
