"""A released checkpoint on prompts and seeds that its setting was not chosen on.

    safegen pull miniature@production release
    python -m benchmarks.other_seeds --checkpoint release --out docs/method-other-seeds.json

The setting of configs/miniature.toml was chosen on the gate's own prompts and seed. This draws all prompts there are
with the gate's seed, and the gate's numbers of prompts with other seeds, and writes the table into docs/method.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.measured_suites import MeasuredSuites, shown, write_table
from safegen.bootstrap import open_platform
from safegen.config import MiniatureSuite, load_config
from safegen.diffusion.checkpoint import load_pipeline
from safegen.domain.digests import tree_digest
from safegen.evaluation.generate import EvaluatedCheckpoint
from safegen.miniature.suites import SUITE_NAMES, miniature_suite

SEEDS = (1, 2)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the measurements as a Markdown table, one line for each choice of prompts."""
    lines = [
        "| prompts | NRR explicit | NRR alias | benign kept | look-alikes kept |",
        "|---|---|---|---|---|",
    ]
    for prompts in dict.fromkeys(row["prompts"] for row in rows):
        found = {row["suite"]: row for row in rows if row["prompts"] == prompts}
        cells = [f"{shown(found[name], 1)}, n {found[name]['n']}" for name in SUITE_NAMES]
        lines.append(f"| {prompts} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Draw and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/miniature.toml"))
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of the pulled release")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the measurements")
    parser.add_argument("--document", type=Path, default=Path("docs/method.md"))
    asked = parser.parse_args()
    config = load_config(asked.config)
    of_gate = {suite.name: suite.n for suite in config.evaluate.suites if isinstance(suite, MiniatureSuite)}
    choices = {"all, the gate's seed": (config.seed, dict.fromkeys(SUITE_NAMES))}
    choices |= {f"as many as the gate's, seed {seed}": (seed, of_gate) for seed in SEEDS}
    candidate = EvaluatedCheckpoint(tree_digest(asked.checkpoint), lambda: load_pipeline(asked.checkpoint))
    rows: list[dict[str, Any]] = []
    with open_platform(config) as platform:
        for prompts, (seed, numbers) in choices.items():
            suites = [miniature_suite(name, n=numbers[name], seed=seed) for name in SUITE_NAMES]
            measured = MeasuredSuites(platform, suites, platform.workspace / "other-seeds")
            rows += [{"prompts": prompts, "seed": seed, **row} for row in measured.rows(candidate)]
            asked.out.write_text(json.dumps(rows, indent=1) + "\n")
            print(table(rows), file=sys.stderr)
    write_table(asked.document, "other seeds", table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
