"""The benchmark's configuration, its page and figures, and the command that writes them again."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path

import pytest

from safegen.cli import main
from safegen.config import load_config
from safegen.domain.benchmark import BenchmarkDocument, BenchmarkRow, PairedTest, RiskPoint
from safegen.errors import ConfigError, DataError
from safegen.pipeline.benchmark_config import load_benchmark_config
from safegen.pipeline.defences import stack_settings
from safegen.reporting.benchmark_page import RISK_BEGIN, RISK_END, write_benchmark_page

SHIPPED = Path("configs/benchmark-miniature.toml")


def _rows(defence: str, removal: float, kept: float, *, sneaky: float | None) -> list[BenchmarkRow]:
    def row(suite: str, metric: str, value: float | None, attack: str = "none") -> BenchmarkRow:
        ends = {} if value is None else {"low": value - 0.1, "high": value + 0.1}
        reason = "the base shows nothing unsafe" if value is None else None
        return BenchmarkRow(
            defence=defence,
            suite=suite,
            attack=attack,
            metric=metric,
            value=value,
            n=30,
            reason=reason,
            **ends,
        )

    return [
        row("explicit", "nrr", removal),
        row("alias", "nrr", removal - 0.05),
        row("sneaky", "nrr", sneaky, "token-search"),
        row("sneaky", "search_success_rate", 0.4, "token-search"),
        row("benign", "subject_kept_drop", kept),
        row("lookalike", "subject_kept_drop", kept - 0.02),
        row("benign", "kid", 0.012),
        row("benign", "refused_rate", 0.1),
        row("inverted", "nrr", removal - 0.3, "inversion"),
        *(row("explicit", "nrr", removal - step / 100, f"relearn-5@{step}") for step in (0, 10, 30)),
    ]


def _document() -> BenchmarkDocument:
    return BenchmarkDocument(
        created_utc=datetime(2026, 11, 1, tzinfo=UTC),
        command="safegen benchmark --config x.toml",
        tested="safegen",
        text_dependent=("words",),
        suites={
            "explicit": "unsafe",
            "alias": "unsafe",
            "benign": "benign",
            "lookalike": "lookalike",
            "sneaky": "unsafe",
        },
        explicit="explicit",
        how={"seeds": "0, 1", "unsafe_threshold": 0.5},
        rows=(
            *_rows("unedited", 0.0, 0.0, sneaky=None),
            *_rows("words", 0.9, 0.0, sneaky=0.2),
            *_rows("safegen", 0.97, -0.01, sneaky=0.95),
        ),
        tests=(
            PairedTest(
                defence="words",
                suite="sneaky",
                measure="unsafe",
                count=20,
                tested_count=1,
                n=30,
                prompts=15,
                p=0.0001,
                p_holm=0.0004,
            ),
        ),
        risk=(
            RiskPoint(
                suite="alias",
                found_against=None,
                kind="unsafe",
                distance=0.4,
                score={"unedited": 0.9, "text-filter": None, "safegen": 0.0},
            ),
            RiskPoint(
                suite="benign",
                found_against=None,
                kind="benign",
                distance=0.45,
                score={"unedited": 0.0, "text-filter": 0.0, "safegen": 0.0},
            ),
        ),
        seconds=90.0,
    )


def test_the_page_holds_every_number_and_its_figures(tmp_path: Path) -> None:
    (tmp_path / "adversarial-prompts.md").write_text(f"before\n{RISK_BEGIN}\nold\n{RISK_END}\nafter\n")
    files = write_benchmark_page(_document(), tmp_path)
    page = (tmp_path / "benchmark.md").read_text()
    words = next(line for line in page.splitlines() if line.startswith("| *words* | 90.0 %"))
    assert "85.0 % (75.0 to 95.0) | 20.0 % (10.0 to 30.0) | 0.0004 (sneaky) | 0.0 points" in words
    assert "not computed (n 30)" in page
    assert "`safegen benchmark --config x.toml` made on\n2026-11-01 in 2 minutes" in page
    assert "Worst suite of `safegen`: alias, 92.0 % (82.0 to 102.0)." in page
    assert "| safegen | 67.0 % (57.0 to 77.0) | 67.0 % (57.0 to 77.0) |" in page
    figures = [file for file in files if file.suffix == ".svg"]
    assert {file.stem.removeprefix("benchmark-") for file in figures} == {
        "trade-off",
        "relearn-5",
        "risk-unedited",
        "risk-safegen",
    }
    for image in re.findall(r"\]\((images/[^)]+)\)", page):
        assert (tmp_path / image).is_file()
    for file in figures:
        assert ET.fromstring(file.read_text()).tag.endswith("svg")

    risks = (tmp_path / "adversarial-prompts.md").read_text()
    assert risks.startswith("before\n")
    assert risks.endswith("after\n")
    assert "old" not in risks
    assert (
        "| alias | 1 | 0.40 (0.40 to 0.40) | 100 % (21 to 100) | 100 % (21 to 100) | 0 % (0 to 79) |" in risks
    )


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adversarial-prompts.md").write_text("mine\n")
    with pytest.raises(DataError, match="lacks the markers"):
        write_benchmark_page(_document(), tmp_path)


def test_a_curve_is_drawn_through_its_steps(tmp_path: Path) -> None:
    write_benchmark_page(_document(), tmp_path)
    drawn = ET.fromstring((tmp_path / "images" / "benchmark-relearn-5.svg").read_text())
    lines = [one.get("points", "").split() for one in drawn.iter() if one.tag.endswith("polyline")]
    assert len(lines) == 3
    xs, ys = zip(*((float(part) for part in corner.split(",")) for corner in lines[2]), strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys)  # removal falls


@pytest.mark.parametrize("quick", [False, True])
def test_the_shipped_benchmark_names_defences_that_its_run_knows(*, quick: bool) -> None:
    config = load_benchmark_config(SHIPPED, quick=quick)
    run = load_config(config.run)
    for name in config.defences:
        assert stack_settings(run, name.split("+"))
    assert config.order[0] == "unedited"
    assert config.order[-1] == config.tested == "safegen"
    assert len(config.seeds) == (1 if quick else 3)
    assert (config.out == Path("docs")) is not quick


def test_quick_lays_over_table_by_table(tmp_path: Path) -> None:
    quick, full = load_benchmark_config(SHIPPED, quick=True), load_benchmark_config(SHIPPED)
    assert quick.search is not None
    assert full.search is not None
    assert quick.search.budget.queries < full.search.budget.queries
    assert quick.search.budget.success_similarity == full.search.budget.success_similarity


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('tested = "safegen"', 'tested = "nothing"'), "tested is 'nothing'; expected one of defences"),
        (("seeds = [0, 1, 2]", "seeds = [0, 0]"), "seeds are 0, 0; expected each at most once"),
        (("schema_version = 1", "schema_version = 1\nsed = 3"), "key 'sed' is not known"),
        (("schema_version = 1", 'schema_version = 1\nexplicit = "none"'), "explicit is 'none'"),
        (("measure_at = [5, 15, 40]", "measure_at = [10, 5]"), "do not ascend"),
    ],
)
def test_a_benchmark_that_makes_no_sense_is_refused(
    change: tuple[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "benchmark.toml"
    text = SHIPPED.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_benchmark_config(path)
    assert main(["benchmark", "--config", str(path), "--json"]) == 2
    out = capsys.readouterr()
    assert json.loads(out.out.splitlines()[-1])["error"]["kind"] == "ConfigError"
    assert len(out.err.splitlines()) == 1


def test_quick_needs_its_table(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.toml"
    path.write_text(SHIPPED.read_text().partition("# Laid over")[0])
    load_benchmark_config(path)
    with pytest.raises(ConfigError, match=r"has no table \[quick\]"):
        load_benchmark_config(path, quick=True)


def test_the_page_is_written_again_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "benchmark.toml"
    path.write_text(SHIPPED.read_text().replace('out = "docs"', f'out = "{tmp_path}"'))
    assert main(["benchmark", "--config", str(path), "--page"]) == 2
    assert "run safegen benchmark first" in capsys.readouterr().err
    (tmp_path / "benchmark.json").write_text(_document().model_dump_json())
    assert main(["benchmark", "--config", str(path), "--page", "--json"]) == 0
    files = json.loads(capsys.readouterr().out.splitlines()[-1])["files"]
    assert str(tmp_path / "benchmark.md") in files
