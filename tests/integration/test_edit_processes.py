"""Several processes edit as one with a larger batch: the real launcher, gloo, CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from safegen.defences.safegen import edit_unet
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer
from tests.unit.test_edit import settings, triplets

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
# AdamW divides by the size of the gradient, so where that is all but 0 its rounding shows. Weights move by up to
# steps x rate = 4e-3 here.
TOLERANCE = 4e-5
STEPS, RATE = 4, 1e-3

_EDIT = """
import json, os, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from safegen.defences.safegen import EditObservers, edit_unet
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer
from tests.unit.test_edit import settings, triplets

folder, changes, stop_at = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
rank = int(os.environ.get("RANK", 0))
losses = []

def on_step(step, values):
    assert rank == 0, "only the first process tells observers"
    losses.append(values["loss"])
    if step == stop_at:
        os._exit(7)

pipeline = tiny_pipeline(tiny_tokenizer(folder / f"tokenizer-{rank}"))
edit_unet(
    pipeline, triplets(pipeline), settings(**changes), seed=1,
    progress_file=folder / "progress.pt" if rank == 0 else None,  # on another machine there may be none
    observers=EditObservers(on_step=on_step),
)
weights = {name: weight.contiguous() for name, weight in pipeline.unet.state_dict().items()}
save_file(weights, folder / f"{rank}.safetensors")
if rank == 0:
    (folder / "losses.json").write_text(json.dumps(losses))
"""


_COMMAND = """
import json, os, sys
from pathlib import Path
from safetensors.torch import save_file
from safegen.bootstrap import load_placed, processes
from safegen.cli.launched import run_launched
from safegen.config import HardwareSection
from safegen.defences.safegen import edit_unet
from safegen.pipeline.followers import EditJob, followed
from tests.unit.test_edit import settings, triplets

folder, changes = Path(sys.argv[1]), json.loads(sys.argv[2])
rank = int(os.environ["RANK"])

def command():
    assert (rank, processes()) == (0, 2)
    pipeline, hardware = load_placed(folder / "base", HardwareSection()), HardwareSection()
    with followed(EditJob(folder / "base", hardware, settings(**changes), 1, triplets(pipeline))):
        edit_unet(pipeline, triplets(pipeline), settings(**changes), seed=1)
    weights = {name: weight.contiguous() for name, weight in pipeline.unet.state_dict().items()}
    save_file(weights, folder / "0.safetensors")
    return 0

code = run_launched(command, rank=rank)
(folder / f"code-{rank}").write_text(str(code))
"""


def launched(
    folder: Path, stop_at: int = 0, code: str = _EDIT, **changes: object
) -> subprocess.CompletedProcess[str]:
    script = folder / "edit.py"
    script.write_text(code)
    # What `accelerate launch` itself starts for several processes; its own command knows no way for CPUs but MPI.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    return subprocess.run(
        [*launcher, str(script), str(folder), json.dumps(changes), str(stop_at)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )


COMMON = {"steps": STEPS, "learning_rate": RATE, "ema_decay": 0.0}


def assert_edited_as_alone(folder: Path, changes: dict[str, object]) -> None:
    """Compare with one process of twice the batch."""
    first = load_file(folder / "0.safetensors")
    alone = tiny_pipeline(tiny_tokenizer(folder / "tokenizer"))
    before = {name: weight.detach().clone() for name, weight in alone.unet.state_dict().items()}
    edit_unet(alone, triplets(alone), settings(batch_size=2, **changes), seed=1)
    for name, weight in alone.unet.state_dict().items():
        torch.testing.assert_close(first[name], weight, rtol=0, atol=TOLERANCE)
    moved = max((first[name] - before[name]).abs().max().item() for name in before)
    assert moved > 50 * TOLERANCE


def test_two_processes_edit_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    changes = {
        **COMMON,
        "text": "mixed",
        "preserve": "base",
        "target": "exact",
        "gradient_checkpointing": True,
    }
    child = launched(tmp_path, batch_size=1, **changes)
    assert child.returncode == 0, child.stderr
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert_edited_as_alone(tmp_path, changes)


def test_a_command_runs_in_the_first_process_and_the_other_one_follows_its_edit(tmp_path: Path) -> None:
    tiny_pipeline(tiny_tokenizer(tmp_path / "words")).save_pretrained(tmp_path / "base")
    child = launched(tmp_path, code=_COMMAND, batch_size=1, **COMMON)
    assert child.returncode == 0, child.stderr
    assert [(tmp_path / f"code-{rank}").read_text() for rank in range(2)] == ["0", "0"]
    assert_edited_as_alone(tmp_path, COMMON)


def test_two_processes_that_were_killed_go_on_to_the_same_weights(tmp_path: Path) -> None:
    changes = {**COMMON, "accumulation": 2, "checkpoint_every_steps": 2}
    assert launched(tmp_path, stop_at=3, batch_size=1, **changes).returncode != 0
    assert (tmp_path / "progress.pt").exists()
    child = launched(tmp_path, batch_size=1, **changes)
    assert child.returncode == 0, child.stderr
    assert len(json.loads((tmp_path / "losses.json").read_text())) == STEPS - 2
    assert_edited_as_alone(tmp_path, changes)
