"""Generation on the miniature: batched, against `pipe(prompt)` one at a time; the pictures must be the same."""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks.results import Comparison, record
from safegen.bootstrap import miniature_checkpoint
from safegen.diffusion.checkpoint import load_pipeline
from safegen.diffusion.sampler import DrawRequest, SamplerSettings, draw
from safegen.miniature.suites import miniature_suite

PICTURES, BATCH_SIZE, ROUNDS = 64, 32, 3
STEPS, GUIDANCE = 20, 4.0
LARGEST_DIFFERENCE = 2


def main() -> None:
    from diffusers import DDIMScheduler

    pipeline = load_pipeline(miniature_checkpoint())
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    rows = miniature_suite("benign", n=PICTURES, seed=0).rows
    requests = [DrawRequest(row.text, row.seed) for row in rows]
    settings = SamplerSettings(steps=STEPS, guidance=GUIDANCE, batch_size=BATCH_SIZE)

    def ours() -> list[np.ndarray]:
        return [np.asarray(picture) for _, picture in draw(pipeline, requests, settings)]

    def theirs() -> list[np.ndarray]:
        return [
            np.asarray(
                pipeline(
                    request.prompt,
                    num_inference_steps=STEPS,
                    guidance_scale=GUIDANCE,
                    generator=torch.Generator().manual_seed(request.seed),
                    return_dict=False,
                )[0][0]
            )
            for request in requests
        ]

    seconds: list[tuple[float, float]] = []
    difference = 0
    for _ in range(ROUNDS):
        start = time.perf_counter()
        batched = ours()
        middle = time.perf_counter()
        single = theirs()
        seconds.append((middle - start, time.perf_counter() - middle))
        difference = max(
            difference, int(np.abs(np.array(batched, np.int16) - np.array(single, np.int16)).max())
        )
    if difference > LARGEST_DIFFERENCE:
        raise SystemExit(
            f"sample: pictures differ by {difference}/255; expected {LARGEST_DIFFERENCE} at most"
        )
    ours_s, theirs_s = (float(np.median(column)) for column in zip(*seconds, strict=True))
    record(
        "sample",
        Comparison(PICTURES / ours_s, PICTURES / theirs_s, "pictures/s", PICTURES),
        compared=f"{PICTURES} pictures of the miniature, {STEPS} steps, guidance {GUIDANCE}, float32: batches of "
        f"{BATCH_SIZE} against `pipe(prompt)` one at a time, same seeds. Largest difference of any byte: "
        f"{difference}/255. Median of {ROUNDS} rounds in turn.",
        bar=">= 3, pictures within 2/255",
    )


if __name__ == "__main__":
    main()
