"""The model card and the bill of materials of a release."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from safegen.domain.decision import CheckOutcome
from safegen.domain.digests import tree_digests
from safegen.domain.report import DetectorRecord, Report, SamplerRecord, SuiteReport, metric_of
from safegen.domain.statistics import Interval
from safegen.release.facts import ReleaseFacts
from safegen.release.model_card import model_card
from safegen.release.sbom import ml_bom
from safegen.release.version_page import MOST_CHARACTERS, PageLinks, version_page
from tests.signed_releases import MODEL, full_decision, make_checkpoint


@pytest.fixture
def facts(tmp_path: Path) -> ReleaseFacts:
    checkpoint = make_checkpoint(tmp_path / "new")
    decision = full_decision(checkpoint)
    metrics = (
        metric_of("nrr", Interval(0.9873, 0.951, 0.9981, 120)),
        metric_of("fid", float("nan"), n=8),
    )
    suite = SuiteReport(
        name="explicit",
        kind="unsafe",
        prompt_set_sha256="e" * 64,
        n_prompts=120,
        n_images=120,
        n_scored=119,
        n_unscored=1,
        metrics=metrics,
    )
    report = Report(
        model=MODEL,
        checkpoint_sha256=decision.checkpoint_sha256,
        base_sha256="b" * 64,
        datasets={"emoji": "d" * 64, "emoji-triplets": "f" * 64},
        detector=DetectorRecord(
            name="miniature", version="1", model_sha256="c" * 64, unsafe_labels=("AXE",), threshold=0.5
        ),
        sampler=SamplerRecord(scheduler="DDIM", steps=20, guidance=4.0, width_px=48, height_px=48),
        seeds={"evaluation": 7},
        versions={"torch": "2.13.0+cpu", "great_expectations": "1.24.1"},
        code_version="0.1.0",
        created_utc=datetime(2026, 11, 25, tzinfo=UTC),
        results_sha256="2" * 64,
        suites=(suite,),
    )
    return ReleaseFacts(
        model=MODEL,
        architecture="StableDiffusionPipeline",
        base="miniature",
        method="safegen",
        settings={"seed": 0, "target": "exact", "learning_rate": 2e-4},
        files=tree_digests(checkpoint),
        report=report,
        decision=decision,
        licence="Apache-2.0",
    )


def test_the_card_tells_what_where_from_how_measured_and_its_limits(facts: ReleaseFacts) -> None:
    card = model_card(facts)
    for line in (
        "# miniature",
        f"| this checkpoint | `{facts.report.checkpoint_sha256}` |",
        f"| edited from miniature | `{'b' * 64}` |",
        "| learning\\_rate | 0.0002 |",
        f"| dataset emoji-triplets | `{'f' * 64}` |",
        "| explicit | nrr | 0.9873 | 0.951 to 0.9981 | 120 |",
        "| explicit | fid | not computable: nan is not a finite number |  | 8 |",
        "could not be scored: 1 of 120",
        "score of at least 0.5: AXE.",
        "## Limits",
        "No suite of look-alikes was evaluated",
        "Weights: Apache-2.0.",
    ):
        assert line in card, line
    assert model_card(facts) == card


def test_a_licence_that_nobody_stated_is_said_so(facts: ReleaseFacts) -> None:
    silent = replace(facts, licence="")
    assert "Weights: not stated" in model_card(silent)
    assert b"not stated" in ml_bom(silent)


def test_no_text_becomes_markup_or_another_cell(facts: ReleaseFacts) -> None:
    nasty = "a | b <img src=x> [c](d)\n| e |"
    card = model_card(replace(facts, base=nasty, settings={nasty: nasty}, licence=nasty))
    assert "<img" not in card
    assert "[c](d)" not in card
    assert "\n| e |" not in card


def test_the_bill_of_materials_is_a_cyclonedx_ml_bom(facts: ReleaseFacts) -> None:
    text = ml_bom(facts)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode()) is None
    assert ml_bom(facts) == text
    bom = json.loads(text)
    model = bom["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    [measured] = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert measured == {
        "type": "nrr",
        "value": "0.9873",
        "slice": "explicit, n = 120",
        "confidenceInterval": {"lowerBound": "0.951", "upperBound": "0.9981"},
    }
    parts = {part["bom-ref"]: part for part in bom["components"]}
    for path, digest in facts.files.items():
        assert parts[f"file:{path}"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert parts["library:torch"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert {one["ref"] for one in model["modelCard"]["modelParameters"]["datasets"]} <= parts.keys()


def test_an_altered_bill_does_not_fit_the_schema(facts: ReleaseFacts) -> None:
    bom = json.loads(ml_bom(facts))
    bom["metadata"]["component"]["modelCard"]["invented"] = 1
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom)) is not None


LINKS = PageLinks("run-1", "http://127.0.0.1:5000/#/runs/run-1", "run-2", "mlflow ui", "production")


def test_the_version_page_tells_the_whole_story(facts: ReleaseFacts) -> None:
    page = version_page(facts, LINKS)
    for part in (
        "**pass** by policy",
        "| explicit/nrr &gt;= 0.9 (low) | yes | low 0.95 is &gt;= 0.9 |",
        "| explicit | nrr | 0.9873 | 0.951 to 0.9981 | 120 |",
        f"| checkpoint | `{facts.report.checkpoint_sha256}` |",
        "| dataset emoji-triplets | `ffffffffffffffff` |",
        "learning\\_rate 0.0002",
        "[run-1](http://127.0.0.1:5000/#/runs/run-1)",
        "`run-2`",
        "safegen pull miniature@production DIR",
    ):
        assert part in page, part
    assert "more are in the evaluation run" not in page


def test_a_page_that_is_too_long_keeps_what_failed_and_says_what_is_missing(facts: ReleaseFacts) -> None:
    good = [
        CheckOutcome(name=f"explicit/check-{n}", kind="policy", passed=True, reason="as it should be " * 9)
        for n in range(60)
    ]
    bad = CheckOutcome(name="sneaky/nrr", kind="policy", passed=False, reason="0.31 is too low")
    decision = facts.decision.model_copy(update={"outcome": "blocked", "checks": (*good, bad)})
    page = version_page(replace(facts, decision=decision), LINKS)
    assert len(page) <= MOST_CHARACTERS
    assert "| sneaky/nrr | **no** | 0.31 is too low |" in page
    assert "more are in the evaluation run" in page
    assert "### Runs" in page
    assert "safegen pull" not in page
