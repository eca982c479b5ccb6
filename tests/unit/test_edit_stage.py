"""The edit stage with every weight edit but SafeGen's, whose runs `tests/flows` has."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from safegen.adapters.folder_store import FolderStore
from safegen.adapters.memory_tracking import MemoryTracker
from safegen.bootstrap import Platform
from safegen.config import BaseSection, load_config
from safegen.data.manifest import write_triplets
from safegen.defences.adv_unlearn_settings import AdvUnlearnSettings
from safegen.defences.esd_settings import EsdSettings
from safegen.defences.settings import WeightEditSettings
from safegen.defences.uce_settings import UceSettings
from safegen.diffusion.checkpoint import load_pipeline
from safegen.domain.dataset import TripletRecord
from safegen.domain.digests import tree_digest, tree_digests
from safegen.errors import EditError
from safegen.pipeline.edit import run_edit
from safegen.pipeline.outcomes import Triplets
from tests.tiny_pipeline import tiny_pipeline, tiny_tokenizer
from tests.weight_edit_case import CONCEPT

SHA = "0" * 64


@dataclass(frozen=True)
class WatchedPlatform(Platform):
    """A platform whose tracker keeps runs in memory."""

    tracker: MemoryTracker = field(default_factory=MemoryTracker)  # pyright: ignore[reportIncompatibleVariableOverride]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in half precision, as checkpoints are kept."""
    folder = tmp_path_factory.mktemp("base")
    pipeline = tiny_pipeline(tiny_tokenizer(folder / "tokenizer"))
    pipeline.to(torch.float16).save_pretrained(folder / "pipeline", safe_serialization=True)
    return folder / "pipeline"


@pytest.fixture
def triplets(tmp_path: Path) -> Triplets:
    record = TripletRecord(SHA, SHA, SHA, SHA, SHA, "an axe", "a bell", "[]", 1, 8, False)
    version = write_triplets(FolderStore(tmp_path / "store"), "few", [record], [])
    return Triplets(
        dataset="few",
        digest=version.digest,
        count=1,
        quarantined={},
        manifest_uri="file:///few",
        data_docs=tmp_path / "docs.html",
    )


def platform(base: Path, folder: Path, edit: WeightEditSettings) -> WatchedPlatform:
    shipped = load_config(Path("configs/miniature.toml"))
    few = tuple(suite.model_copy(update={"n": 1}) for suite in shipped.evaluate.suites[:1])
    config = shipped.model_copy(
        update={
            "base": BaseSection(source=str(base)),
            "workspace": folder,
            "concept": CONCEPT,
            "edit": edit,
            "evaluate": shipped.evaluate.model_copy(update={"suites": few, "steps": 1}),
        }
    )
    store = FolderStore(folder / "store")
    return WatchedPlatform(config, store, store, artifact_root=str(folder / "artifacts"))


ADV_UNLEARN = AdvUnlearnSettings(
    steps=2, warmup_steps=1, sampling_steps=1, retain_batch_size=1, attack_steps=1, learning_rate=1e-2
)


@pytest.mark.parametrize(
    ("edit", "part", "told"),
    [
        (EsdSettings(steps=2, sampling_steps=1, learning_rate=1e-2), "unet", "edit/loss"),
        (UceSettings(), "unet", "edit/moved"),
        (ADV_UNLEARN, "text_encoder", "edit/loss_attack"),
    ],
    ids=["esd", "uce", "adv-unlearn"],
)
def test_a_candidate_is_the_base_but_for_the_edited_part(
    base: Path, triplets: Triplets, tmp_path: Path, edit: WeightEditSettings, part: str, told: str
) -> None:
    where = platform(base, tmp_path, edit)
    made = run_edit(where, triplets)
    assert made.delta is None
    assert made.base_digest == tree_digest(base)
    assert made.is_present(where.trainer_store)
    before, after = tree_digests(base), tree_digests(made.checkpoint)
    assert before.keys() == after.keys()
    touched = {name for name in after if before[name] != after[name]}
    assert {name.partition("/")[0] for name in touched} == {part}
    for file in (name for name in touched if name.endswith(".safetensors")):
        assert {weight.dtype for weight in load_file(made.checkpoint / file).values()} == {torch.float16}
    load_pipeline(made.checkpoint)
    [run] = where.tracker.runs.values()
    assert run.params["kind"] == edit.kind
    assert told in run.metrics
    assert not list(tmp_path.glob("edits/*/progress.pt"))


def test_several_processes_are_refused_where_an_edit_trains_in_one(
    base: Path, triplets: Triplets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(EditError, match="'esd' trains in one process, not in 2; start it without accelerate"):
        run_edit(platform(base, tmp_path, EsdSettings(steps=1)), triplets)
