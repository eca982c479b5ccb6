"""Promotion: from a candidate that passed to a signed release that anybody can prove."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from safetensors.numpy import save_file

from safegen.adapters.folder_store import FolderStore
from safegen.adapters.memory_tracking import MemoryModelRegistry
from safegen.bootstrap import Platform
from safegen.config import load_config
from safegen.domain.decision_formats import as_json
from safegen.domain.digests import tree_digest
from safegen.domain.gate_files import read_report
from safegen.domain.report import flat_metrics, report_digest, report_json
from safegen.errors import DataError
from safegen.pipeline.outcomes import Decided, Edited, Evaluated, Triplets
from safegen.pipeline.promote import CHAMPION_ALIAS, run_promote
from safegen.release.audit import read_audit
from safegen.release.pull import pull
from safegen.release.verify import verify_folder
from safegen.release_keys import open_verifier
from tests.unit.test_gate import Files, files

__all__ = ["files"]  # a fixture


@dataclass(frozen=True)
class RegisteredPlatform(Platform):
    """A platform whose registry is in memory."""

    memory: MemoryModelRegistry = MemoryModelRegistry()  # noqa: RUF009  (a test makes its own)

    @property
    def registry(self) -> MemoryModelRegistry:
        return self.memory


@pytest.fixture
def platform(tmp_path: Path) -> RegisteredPlatform:
    shipped = load_config(Path("configs/miniature.toml"))
    config = shipped.model_copy(update={"workspace": tmp_path / "work"})
    store = FolderStore(tmp_path / "store")
    return RegisteredPlatform(config, store, store, str(tmp_path), memory=MemoryModelRegistry())


@pytest.fixture
def candidate(files: Files) -> Files:
    """Evidence that passes, about weights that are real."""
    [weights] = files.checkpoint.glob("unet/*.safetensors")
    save_file({"attn1.weight": np.ones((2, 2), dtype=np.float16)}, weights)
    digest = tree_digest(files.checkpoint)
    report = read_report(files.report).model_copy(update={"checkpoint_sha256": digest})
    files.report.write_text(report_json(report))
    return files


def stages(files: Files) -> tuple[Edited, Evaluated, Decided]:
    decision = files.decide()
    path = files.report.with_name("decision.json")
    path.write_text(as_json(decision))
    digest = tree_digest(files.checkpoint)
    triplets = Triplets(
        dataset="t", digest="d" * 64, count=1, quarantined={}, manifest_uri="", data_docs=files.report
    )
    edited = Edited(
        checkpoint=files.checkpoint,
        checkpoint_digest=digest,
        delta=files.report,
        base_digest="b" * 64,
        triplets=triplets,
        run_id="edit-run",
        model_id="m-1",
        run_url="",
        seconds=1.0,
    )
    report = read_report(files.report)
    evaluated = Evaluated(
        report=files.report,
        report_digest=report_digest(report),
        sheets={},
        metrics=flat_metrics(report),
        run_id="evaluation-run",
        run_url="",
    )
    return edited, evaluated, Decided(decision=path, passed=decision.passed, reasons=decision.reasons)


def test_what_is_promoted_is_signed_and_says_what_it_is(
    platform: RegisteredPlatform, candidate: Files, tmp_path: Path
) -> None:
    promoted = run_promote(platform, *stages(candidate))
    again = run_promote(platform, *stages(candidate))
    assert (promoted.version, promoted.changed) == ("1", True)
    assert (again.version, again.changed, again.digest) == ("1", False, promoted.digest)
    assert platform.registry.version_of_alias("miniature", CHAMPION_ALIAS) == promoted.registry_version

    private = tmp_path / "work" / "keys" / "release.key"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert promoted.public_key == private.with_name("release.pub")
    verifier = open_verifier(platform.config, [promoted.public_key])
    pull(platform.promoter_store, "miniature", "production", tmp_path / "pulled", verifier=verifier)
    assert verify_folder(tmp_path / "pulled", verifier).valid
    card = (tmp_path / "pulled" / "MODEL_CARD.md").read_text()
    assert "| explicit | nrr |" in card
    assert "Weights: Apache-2.0 AND MIT" in card
    bom = (tmp_path / "pulled" / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bom) is None
    assert [entry.action for entry in read_audit(platform.promoter_store, "miniature")] == [
        "publish",
        "promote",
    ]


def test_a_blocked_candidate_is_neither_signed_nor_released(
    platform: RegisteredPlatform, candidate: Files
) -> None:
    edited, evaluated, decided = stages(candidate)
    decision = json.loads(decided.decision.read_text())
    decision["checks"][0] |= {"passed": False}
    decided.decision.write_text(json.dumps(decision | {"outcome": "blocked"}))
    with pytest.raises(DataError, match="outcome is 'blocked'"):
        run_promote(platform, edited, evaluated, decided)
    written = [info.key for info in platform.promoter_store.list("")]
    assert all(key.startswith("blobs/") for key in written)
