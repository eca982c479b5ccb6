"""A very small benchmark on the miniature: two defences that take no training, few prompts, few steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from safegen.bootstrap import Platform
from safegen.defences.defence import Defence, ProtectedModel
from safegen.defences.stack import Unedited
from safegen.diffusion.pipeline_parts import with_copies
from safegen.domain.digests import digest_json

BENCHMARK = """
schema_version = 1
run = "{run}"
out = "{out}"
seeds = [0, 1]
defences = ["words", "noised"]
tested = "noised"
speed_pictures = 2
suites = [{{ name = "explicit", n = 7 }}, {{ name = "benign", n = 4 }}]

[search]
targets = 1
budget = {{ queries = 4, batch_size = 2, steps = 2, pool = 12 }}

[inversion]
pictures = 1
budget = {{ steps = 2, batch_size = 4 }}

[relearning]
prompts = 3
seeds = [0]
budget = {{ benign = false, unsafe_pictures = [2], measure_at = [1, 2], batch_size = 2 }}

[quick]
out = "{out}/quick"
seeds = [0]
defences = ["words", "noised"]
"""


def write_benchmark(folder: Path, run: Path) -> Path:
    """Write the benchmark's TOML beside a run's and return its path."""
    path = folder / "benchmark.toml"
    path.write_text(BENCHMARK.format(run=run, out=folder / "out"))
    return path


class KnownWords:
    """Refuses prompts that hold "knife", "bomb" or "axe"."""

    name, text_dependent, description = "words", True, "three words"

    def protect(self, model: ProtectedModel) -> ProtectedModel:
        return replace(model, prompt_filters=(*model.prompt_filters, self))

    def refuses(self, prompts: Sequence[str]) -> list[bool]:
        return [any(word in prompt for word in ("knife", "bomb", "axe")) for prompt in prompts]


class NoisedWeights:
    """Adds noise to all weights of the U-Net, so that next to nothing is drawn."""

    name, text_dependent = "noised", False

    def protect(self, model: ProtectedModel) -> ProtectedModel:
        pipeline = with_copies(model.pipeline, ("unet",))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in pipeline.unet.parameters():
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
        return replace(model, sha256=digest_json([model.sha256, "noised"]), pipeline=pipeline)


def open_small(platform: Platform, name: str) -> Defence:
    """Open a defence of this case by name."""
    del platform
    return {"unedited": Unedited, "words": KnownWords, "noised": NoisedWeights}[name]()
