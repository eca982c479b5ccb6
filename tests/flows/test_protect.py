"""The main job with real parts: what it makes, what it re-uses, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from flows.protect import promote_evaluated, protect, protect_until
from safegen.bootstrap import miniature_checkpoint, open_platform
from safegen.config import RunConfig, load_config
from safegen.data.manifest import manifest_key
from safegen.defences.adv_unlearn_settings import AdvUnlearnSettings
from safegen.defences.concept import Concept
from safegen.domain.digests import tree_digest, tree_digests
from safegen.domain.release import RELEASE_DOCUMENTS
from safegen.errors import DataError
from safegen.pipeline.defences import with_defence
from safegen.pipeline.summary import Summary
from safegen.release.pull import pull
from tests.short_run import Workbench

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MADE = ("ingest", "validate", "triplets", "edit", "evaluate")


def _reused(summary: Summary) -> dict[str, bool]:
    return {stage.name: stage.reused for stage in summary.stages}


def _made(summary: Summary) -> list[str]:
    return [stage.name for stage in summary.stages if not stage.reused]


def _released(config: RunConfig) -> dict[str, str]:
    """Everything under releases/ and channels/, with what tells a change."""
    with open_platform(config) as platform:
        return {
            info.key: info.etag
            for prefix in ("releases/", "channels/")
            for info in platform.promoter_store.list(prefix)
        }


def test_a_weak_edit_is_blocked_and_nothing_is_released(first_run: Summary, object_server: RunConfig) -> None:
    assert (first_run.outcome, first_run.exit_code, first_run.release) == ("blocked", 1, None)
    assert _reused(first_run) == dict.fromkeys((*MADE, "gate", "report"), False)
    failed = [check["name"] for check in first_run.decision["checks"] if not check["passed"]]
    assert failed == ["explicit/nrr >= 0.95 (value)"]
    assert _released(object_server) == {}
    with open_platform(object_server) as platform:
        candidate = platform.registry.version_of_alias("short", "candidate")
        assert candidate is not None
        assert platform.registry.tags("short", candidate)["decision"] == "blocked"
        assert platform.registry.version_of_alias("short", "champion") is None


def test_a_second_run_reuses_every_stage(first_run: Summary, object_server: RunConfig) -> None:
    second = protect(object_server)
    assert _reused(second) == dict.fromkeys((*MADE, "gate", "report"), True)
    assert second.decision == first_run.decision
    assert second.metrics == first_run.metrics


def test_what_passes_is_promoted_once_and_a_later_block_changes_nothing(
    first_run: Summary, object_server: RunConfig, workbench: Workbench, tmp_path: Path
) -> None:
    lenient = load_config(workbench.write_run(policy="lenient"))

    promoted = promote_evaluated(lenient)
    assert _made(promoted) == ["gate", "report", "promote"]
    assert (promoted.outcome, promoted.exit_code) == ("promoted", 0)
    assert promoted.release is not None
    assert promoted.release.version == "1"
    after = _released(lenient)
    assert {"releases/short/1/manifest.json", "channels/short/production.json"} <= after.keys()
    with open_platform(lenient) as platform:
        champion = platform.registry.version_of_alias("short", "champion")
        assert champion is not None
        assert platform.registry.tags("short", champion)["decision"] == "pass"
        pull(platform.promoter_store, "short", "production", tmp_path / "model", verifier=platform.verifier)
    for (
        document
    ) in RELEASE_DOCUMENTS:  # what a release adds; all else is the checkpoint that the gate decided on
        (tmp_path / "model" / document).unlink()
    assert tree_digest(tmp_path / "model") == first_run.decision["checkpoint_sha256"]

    again = protect(lenient)
    assert _made(again) == []
    assert again.release == promoted.release

    assert protect(object_server).outcome == "blocked"
    assert _released(lenient) == after


def test_a_changed_seed_makes_only_what_depends_on_it(first_run: Summary, workbench: Workbench) -> None:
    seeded = load_config(workbench.write_run(seed=1))
    with pytest.raises(DataError, match="no triplets result is kept"):
        promote_evaluated(seeded)
    changed = protect(seeded)
    assert _reused(changed) == {
        "ingest": True,
        "validate": True,
        **dict.fromkeys(("triplets", "edit", "evaluate", "gate", "report"), False),
    }
    assert changed.decision["checkpoint_sha256"] != first_run.decision["checkpoint_sha256"]


def test_another_weight_edit_makes_a_whole_candidate_on_the_same_triplets(
    first_run: Summary, object_server: RunConfig
) -> None:
    quick = AdvUnlearnSettings(steps=2, warmup_steps=1, sampling_steps=2, retain_batch_size=1, attack_steps=1)
    config = with_defence(
        object_server.model_copy(
            update={
                "concept": Concept(phrases=("axe",), retain=("hammer",)),
                "defences": {"adv-unlearn": quick},
            }
        ),
        "adv-unlearn",
    )
    made = protect_until(config, "evaluate")
    assert [stage.name for stage in made.stages if not stage.reused] == ["edit", "evaluate"]
    again = protect_until(config, "edit")
    assert [stage.name for stage in again.stages if not stage.reused] == []
    assert again.result["delta"] is None
    candidate = Path(again.result["checkpoint"])
    before, after = tree_digests(miniature_checkpoint()), tree_digests(candidate)
    touched = {name for name in after if before.get(name) != after[name]}
    assert "text_encoder/model.safetensors" in touched
    assert {name.partition("/")[0] for name in touched} == {"text_encoder"}
    assert before.keys() == after.keys()
    base, edited = (
        load_file(folder / "text_encoder" / "model.safetensors")
        for folder in (miniature_checkpoint(), candidate)
    )
    assert {name: weight.dtype for name, weight in base.items()} == {
        name: weight.dtype for name, weight in edited.items()
    }


def test_deleted_products_are_made_again(first_run: Summary, object_server: RunConfig) -> None:
    workspace = object_server.workspace
    digest = first_run.decision["checkpoint_sha256"]
    [checkpoint] = [one for one in workspace.glob("edits/*/checkpoint") if tree_digest(one) == digest]
    next((checkpoint / "unet").glob("*.safetensors")).unlink()
    assert _made(protect(object_server)) == ["edit"]
    assert tree_digest(checkpoint) == digest

    report = Path(first_run.where["report"])
    report.unlink()
    (report.parent / "results.parquet").unlink()
    made = protect(object_server)
    assert _made(made)[0] == "evaluate"
    assert made.metrics == first_run.metrics


def test_a_deleted_manifest_is_made_again(first_run: Summary, object_server: RunConfig) -> None:
    with open_platform(object_server) as platform:
        store = platform.trainer_store
        versions = [
            info.key.split("/")[2] for info in store.list("datasets/emoji/") if "manifest" in info.key
        ]
        [digest] = versions
        store.delete(manifest_key("emoji", digest))
    assert _made(protect(object_server)) == ["ingest"]


def test_a_folder_does_for_an_object_store(workbench: Workbench) -> None:
    config = load_config(workbench.write_run("plain", policy="lenient", store="folder"))
    summary = protect(config)
    assert summary.outcome == "promoted"
    assert summary.release is not None
    assert summary.release.uri.startswith("file://")
    assert (config.workspace / "store" / "channels" / "short" / "production.json").is_file()
