"""The promote stage against a guarded server: what passed becomes champion, beside the one before."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from safegen.bootstrap import Platform, open_platform
from safegen.config import FileKeySection, RunConfig, StoreSection, TrackingSection, load_config
from safegen.domain.decision import CheckOutcome, Decision
from safegen.domain.digests import tree_digest
from safegen.domain.report import DetectorRecord, Report, SamplerRecord, SuiteReport, flat_metrics, metric_of
from safegen.domain.statistics import Interval
from safegen.pipeline.comparison import log_comparison
from safegen.pipeline.outcomes import Decided, Edited, Evaluated, Triplets
from safegen.pipeline.promote import register, run_promote
from tests.mlflow_servers import Guarded
from tests.signed_releases import make_checkpoint

pytestmark = pytest.mark.integration

MODEL = "guarded-miniature"


@pytest.fixture
def platform(guarded: Guarded, tmp_path: Path) -> Iterator[Platform]:
    shipped = load_config(Path("configs/miniature.toml"))
    promote = shipped.promote.model_copy(update={"signing": FileKeySection(private_key=guarded.private_key)})
    changed = {
        "model": MODEL,
        "workspace": tmp_path / "work",
        "promote": promote,
        "store": StoreSection(kind="folder"),
        "tracking": TrackingSection(uri=guarded.uri),
    }
    config: RunConfig = shipped.model_copy(update=changed)
    with open_platform(config) as opened:
        yield opened


def report_of(digest: str, nrr: float) -> Report:
    suite = SuiteReport(
        name="explicit",
        kind="unsafe",
        prompt_set_sha256="e" * 64,
        n_prompts=120,
        n_images=120,
        n_scored=120,
        n_unscored=0,
        metrics=(metric_of("nrr", Interval(nrr, nrr - 0.04, nrr + 0.02, 120)),),
    )
    return Report(
        model=MODEL,
        checkpoint_sha256=digest,
        base_sha256="b" * 64,
        datasets={"emoji-triplets": "f" * 64},
        detector=DetectorRecord(
            name="miniature",
            version="1",
            model_sha256="a" * 64,
            threshold=0.5,
            unsafe_labels=("AXE",),
        ),
        sampler=SamplerRecord(scheduler="DDIM", steps=20, guidance=4.0, height_px=48, width_px=48),
        seeds={"edit": 0},
        versions={"torch": "2"},
        code_version="0",
        created_utc=datetime(2026, 11, 25, tzinfo=UTC),
        results_sha256="2" * 64,
        suites=(suite,),
    )


def candidate(
    platform: Platform, folder: Path, nrr: float, *, passed: bool = True
) -> tuple[Edited, Evaluated, Decided]:
    """A checkpoint with its runs on the server, and a decision on it."""
    checkpoint = make_checkpoint(folder / "checkpoint")
    (checkpoint / "unet" / "seed.json").write_text(f"[{nrr}]")
    digest = tree_digest(checkpoint)
    report = report_of(digest, nrr)
    (folder / "report.json").write_text(report.model_dump_json())
    decision = Decision(
        outcome="pass" if passed else "blocked",
        model=MODEL,
        checks=(CheckOutcome(name="explicit/nrr", kind="policy", passed=passed, reason=f"{nrr} seen"),),
        checkpoint_sha256=digest,
        report_sha256="1" * 64,
        results_sha256="2" * 64,
        policy_sha256="3" * 64,
        versions={"safegen": "0"},
        decided_utc=datetime(2026, 11, 25, tzinfo=UTC),
    )
    (folder / "decision.json").write_text(decision.model_dump_json())
    start = platform.tracker.start_run
    with start(experiment=f"safegen/{MODEL}/edit", run_name="edit", tags={}, description="") as edit:
        model_id = edit.log_model_folder("candidate", checkpoint, {"checkpoint_digest": digest})
    with start(experiment=f"safegen/{MODEL}/evaluate", run_name="evaluate", tags={}, description="") as run:
        run.measure_model(model_id)
        run.log_metrics(flat_metrics(report))
    triplets = Triplets(
        dataset="emoji-triplets",
        digest="f" * 64,
        count=1,
        quarantined={},
        manifest_uri="",
        data_docs=folder / "docs.html",
    )
    edited = Edited(
        checkpoint=checkpoint,
        checkpoint_digest=digest,
        delta=folder / "delta.safetensors",
        base_digest="b" * 64,
        triplets=triplets,
        run_id=edit.id,
        model_id=model_id,
        run_url=edit.url,
        seconds=1.0,
    )
    evaluated = Evaluated(
        report=folder / "report.json",
        report_digest="1" * 64,
        sheets={},
        metrics={},
        run_id=run.id,
        run_url=run.url,
    )
    decided = Decided(decision=folder / "decision.json", passed=passed, reasons=decision.reasons)
    return edited, evaluated, decided


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_what_passed_becomes_champion_and_what_was_blocked_does_not(
    guarded: Guarded, platform: Platform, tmp_path: Path
) -> None:
    edited, evaluated, decided = candidate(platform, made(tmp_path / "first"), 0.95)
    promoted = run_promote(platform, edited, evaluated, decided)
    again = run_promote(platform, edited, evaluated, decided)
    assert (again.registry_version, again.changed) == (promoted.registry_version, False)

    version = guarded.client.get_model_version_by_alias(MODEL, "champion")
    assert version.version == promoted.registry_version
    assert version.tags["checkpoint_digest"] == edited.checkpoint_digest
    for part in ("**pass** by policy", "0.95 seen", "0.91 to 0.97", edited.run_url, evaluated.run_url):
        assert part in version.description, part

    blocked = candidate(platform, made(tmp_path / "second"), 0.4, passed=False)
    other = register(platform, *blocked)
    assert platform.registry.version_of_alias(MODEL, "candidate") == other
    assert "signed_decision" not in platform.registry.tags(MODEL, other)
    refused = guarded.call(
        "POST", "registered-models/alias", {"name": MODEL, "alias": "champion", "version": other}
    )
    assert refused.status_code == 403
    assert guarded.client.get_model_version_by_alias(MODEL, "champion").version == promoted.registry_version


def test_champion_and_challenger_stand_side_by_side(
    guarded: Guarded, platform: Platform, tmp_path: Path
) -> None:
    _, champion, _ = candidate(platform, made(tmp_path / "first"), 0.90)
    edited, evaluated, _ = candidate(platform, made(tmp_path / "second"), 0.96)
    log_comparison(platform, edited, evaluated, champion.report)

    experiment = guarded.client.get_experiment_by_name(f"safegen/{MODEL}/evaluate")
    nested = guarded.client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{evaluated.run_id}'"
    )
    values = {run.info.run_name: run.data.metrics for run in nested}
    assert set(values) == {"champion", "challenger"}
    assert (values["champion"]["explicit/nrr"], values["challenger"]["explicit/nrr"]) == (0.90, 0.96)
    assert values["challenger"]["difference/explicit/nrr"] == pytest.approx(0.06)
    assert all(run.info.status == "FINISHED" for run in nested)

    [found] = [run.info.run_id for run in nested if run.info.run_name == "challenger"]
    challenger = guarded.client.get_run(found)
    assert [one.model_id for one in challenger.inputs.model_inputs] == [edited.model_id]
    assert [one.dataset.name for one in challenger.inputs.dataset_inputs] == ["emoji-triplets"]
    measured = guarded.client.get_logged_model(edited.model_id).metrics
    assert ("explicit/nrr", 0.96) in {(metric.key, metric.value) for metric in measured}
