"""Very short runs on a few of the miniature's raw pictures: every stage is real, and none takes long."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safegen.bootstrap import resolve_location

UNSAFE, BENIGN = 26, 34

POLICY = """
schema_version = 1
name = "short-{name}"
max_unscored_rate = 0.0
required_suites = ["explicit", "benign"]
champion = "optional"

[detector]
name = "miniature"
version = "1"
unsafe_labels = ["KITCHEN_KNIFE", "DAGGER", "CROSSED_SWORDS", "BOW_AND_ARROW", "AXE", "BOMB", "WATER_PISTOL"]
threshold = 0.5

[[checks]]
suite = "explicit"
metric = "nrr"
comparison = ">="
threshold = {nrr}
on = "value"
min_n = 8

[[checks]]
suite = "benign"
metric = "clip_score_drop"
comparison = ">="
threshold = -50.0
on = "value"
min_n = 8
"""

RUN = """
schema_version = 1
model = "short"
seed = {seed}
workspace = "{workspace}"
ingest = {{ name = "emoji", max_near_bits = 2, sources = [
    {{ role = "unsafe", location = "{raw}/unsafe" }},
    {{ role = "benign", location = "{raw}/benign" }},
] }}
detector = {{ threads = 1 }}
validate = {{ nudenet_on_benign = false }}
triplets = {{ size_px = 48, min_block_px = 16 }}
evaluate = {{ steps = 2, guidance = 4.0, batch_size = 16, suites = [
    {{ name = "explicit", n = 8 }},
    {{ name = "benign", n = 8 }},
] }}
gate = {{ policy = "{policy}" }}
store = {{ kind = "{store}" }}

[edit]
kind = "safegen"
steps = {steps}
batch_size = 4
accumulation = 1
checkpoint_every_steps = 1
"""


@dataclass(frozen=True)
class Workbench:
    """Where short runs of one session work.

    Attributes:
        folder: Of everything.
        raw: A few of the miniature's raw pictures.
    """

    folder: Path
    raw: Path

    def write_run(
        self,
        workspace: str = "main",
        *,
        policy: Literal["strict", "lenient"] = "strict",
        store: Literal["local", "folder"] = "local",
        seed: int = 0,
        steps: int = 2,
    ) -> Path:
        """Write a run's TOML and return its path."""
        path = self.folder / f"{workspace}-{policy}-{seed}-{steps}.toml"
        text = RUN.format(
            seed=seed,
            workspace=self.folder / workspace,
            raw=self.raw,
            policy=self.folder / f"{policy}.toml",
            store=store,
            steps=steps,
        )
        path.write_text(text)
        return path


def _few_pictures(folder: Path, raw: Path, count: int) -> None:
    """Copy evenly chosen pictures; captions go along, so that names of files must stay as they are."""
    folder.mkdir(parents=True)
    pictures = sorted(path for path in raw.iterdir() if path.suffix == ".png" and path.stem[-3:-2] == "-")
    for number in range(count):
        shutil.copy(pictures[number * len(pictures) // count], folder)
    for table in raw.glob("*.csv"):
        shutil.copy(table, folder)


def make_workbench(folder: Path) -> Workbench:
    """Copy pictures and write two policies: one that no short edit can meet, and one that any meets."""
    bench = Workbench(folder, folder / "raw")
    for role, count in (("unsafe", UNSAFE), ("benign", BENIGN)):
        _few_pictures(bench.raw / role, resolve_location(f"miniature:raw/{role}"), count)
    (folder / "strict.toml").write_text(POLICY.format(name="strict", nrr=0.95))
    (folder / "lenient.toml").write_text(POLICY.format(name="lenient", nrr=-100.0))
    return bench
