"""MLflow and Prefect as a person sees them after three retrainings: a pass, a block, and another pass."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.browser.screens import keep_screen
from tests.short_run import make_workbench

pytestmark = [
    pytest.mark.browser,
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(600, func_only=True),
]
CANDIDATES = ((2, "lenient", 0), (3, "strict", 1), (4, "lenient", 0))
PATIENCE_MS = 90_000


@dataclass(frozen=True)
class World:
    """Servers that are up, and what the retrainings printed, in their order."""

    mlflow: str
    prefect: str
    made: list[dict]

    @property
    def evaluation_runs(self) -> list[str]:
        return [one["where"]["evaluation run"] for one in self.made]

    def tags(self, url: str) -> dict[str, str]:
        run_id = url.rpartition("/")[2]
        answer = requests.get(
            f"{self.mlflow}/api/2.0/mlflow/runs/get", params={"run_id": run_id}, timeout=60
        ).json()
        return {tag["key"]: tag["value"] for tag in answer["run"]["data"]["tags"]}


def _safegen(config: Path, *words: str, exit_code: int = 0) -> dict:
    command = [sys.executable, "-m", "safegen", *words, "--config", str(config), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == exit_code, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    bench = make_workbench(tmp_path_factory.mktemp("uis"))
    runs = [(bench.write_run(policy=policy, steps=steps), code) for steps, policy, code in CANDIDATES]
    first = runs[0][0]
    try:
        services = {one["name"]: one["url"] for one in _safegen(first, "stack", "up")["services"]}
        made = [_safegen(path, "retrain", exit_code=code) for path, code in runs]
        yield World(services["mlflow"], services["prefect"], made)
    finally:
        _safegen(first, "stack", "down")


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    yield page
    page.close()


def _without_assistant(page: Page) -> None:
    """Close MLflow's chat panel, which opens by itself beside what is looked at."""
    close = page.get_by_role("button", name=re.compile("close", re.IGNORECASE))
    if page.get_by_text("MLflow Assistant").count() and close.count():
        close.last.click()


def test_three_candidates_are_told_apart_and_compared(world: World, page: Page) -> None:
    experiment = world.evaluation_runs[0].split("/")[-3]
    page.goto(f"{world.mlflow}/#/experiments/{experiment}/runs")
    for steps, _, _ in CANDIDATES:
        expect(page.get_by_text(f"paper_code, empty text, {steps} steps, seed 0").first).to_be_attached()
    _without_assistant(page)

    ids = ",".join(f'"{url.rpartition("/")[2]}"' for url in world.evaluation_runs)
    page.goto(f'{world.mlflow}/#/compare-runs?runs=[{ids}]&experiments=["{experiment}"]')
    expect(page.get_by_text("Comparing 3 Runs from 1 Experiment")).to_be_visible()
    for text in ("edit/steps", "edit/target", "benign/clip_score_drop", "benign/fid", "blocked"):
        expect(page.get_by_text(text, exact=True).first).to_be_attached()
    for steps, _, _ in CANDIDATES:
        expect(page.get_by_text(f"paper_code, empty text, {steps} steps, seed 0").first).to_be_attached()
    _without_assistant(page)
    page.get_by_text("Run details").first.scroll_into_view_if_needed()
    keep_screen(page, "mlflow-compare")


def test_a_run_says_what_it_is_and_where_to_look(world: World, page: Page) -> None:
    page.goto(world.evaluation_runs[1])
    expect(page.get_by_text("paper_code, empty text, 3 steps, seed 0").first).to_be_visible()
    expect(page.get_by_text("Metrics are named suite/metric")).to_be_visible()
    expect(page.get_by_role("link", name="the edit's run")).to_have_attribute(
        "href", world.made[1]["where"]["edit run"]
    )
    expect(page.get_by_text("emoji-triplets").first).to_be_visible()
    for metric in ("explicit/nrr", "explicit/nrr_low", "explicit/nrr_high"):
        expect(page.get_by_text(metric, exact=True).first).to_be_attached()
    expect(page.get_by_text("decision", exact=False).first).to_be_visible()
    assert world.tags(world.evaluation_runs[1])["decision"] == "blocked"

    page.goto(f"{world.evaluation_runs[1]}/artifacts/report.html")
    expect(page.get_by_text("report.html").first).to_be_visible()
    expect(page.get_by_text("sheets").first).to_be_visible()


def test_the_page_of_a_version_says_what_was_decided(world: World, page: Page) -> None:
    page.goto(f"{world.mlflow}/#/models/short/versions/2")
    expect(page.get_by_text("by policy short-strict")).to_be_visible()
    expect(page.get_by_text("value 0.0 is not >= 0.95").first).to_be_visible()
    expect(page.get_by_text("How to verify")).to_be_visible()
    page.goto(f"{world.mlflow}/#/models/short")
    expect(page.get_by_text("@ champion")).to_be_visible()
    expect(page.get_by_text("@ candidate")).to_be_visible()


def test_a_flow_run_shows_its_stages_and_leads_to_mlflow_and_back(world: World, page: Page) -> None:
    tags = world.tags(world.evaluation_runs[0])
    assert tags["prefect_url"].startswith(world.prefect)
    page.goto(tags["prefect_url"])
    expect(page.get_by_text("short, seed 0").first).to_be_visible()
    expect(page.get_by_text("Completed").first).to_be_visible()
    page.get_by_text("Task Runs", exact=True).click()
    for stage in ("triplets", "edit", "evaluate"):
        expect(page.get_by_text(stage).first).to_be_visible()
    page.get_by_text("Artifacts", exact=True).click()
    for key in ("ingest", "data-docs", "decision", "report-page", "mlflow-run", "release"):
        expect(page.get_by_text(key, exact=True).first).to_be_visible()
    keep_screen(page, "prefect-run")
    page.get_by_text("mlflow-run", exact=True).first.click()
    expect(page.get_by_role("link", name="Evaluation in MLflow")).to_have_attribute(
        "href", world.evaluation_runs[0]
    )
