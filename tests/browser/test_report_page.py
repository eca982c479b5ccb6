from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.screens import keep_screen
from tests.evaluation_case import make_case

pytestmark = pytest.mark.browser

DESKTOP, PHONE, NARROW = (1360, 900), (390, 844), (320, 640)
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@dataclass
class Visit:
    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    file = folder / "report.html"
    file.write_text(make_case(folder).page("pixelated"), encoding="utf-8")
    return file


@pytest.fixture(
    params=[("light", *DESKTOP), ("dark", *DESKTOP), ("light", *PHONE), ("dark", *NARROW)], ids=str
)
def visit(request: pytest.FixtureRequest, browser: Browser, page_file: Path) -> Iterator[Visit]:
    scheme, width, height = request.param
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": height}, offline=True
    )
    seen = Visit(context.new_page())
    seen.page.on("request", lambda one: seen.requests.append(one.url))
    seen.page.on("console", lambda one: seen.complaints.append(one.text))
    seen.page.on("pageerror", lambda one: seen.complaints.append(str(one)))
    seen.page.goto(page_file.as_uri())
    yield seen
    context.close()


def test_it_is_accessible_fits_the_screen_and_loads_nothing(visit: Visit) -> None:
    page = visit.page
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.get_by_text("Blocked", exact=True)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    for details in page.locator("summary").all():
        details.click()
    found = Axe().run(page, options=RULES).response["violations"]
    assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in found] == []
    assert [url for url in visit.requests if not url.startswith(("file:", "data:"))] == []
    assert visit.complaints == []


def test_it_opens_on_the_decision(browser: Browser, page_file: Path) -> None:
    """For the documentation's picture, SAFEGEN_REPORT_PAGE names the page of a whole run."""
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.goto(Path(os.environ.get("SAFEGEN_REPORT_PAGE") or page_file).absolute().as_uri())
    expect(page.get_by_text(re.compile("^(Blocked|Passed?)$", re.IGNORECASE)).first).to_be_in_viewport()
    keep_screen(page, "report-page")
    page.close()


def test_the_keyboard_reaches_the_content_and_every_wide_table(browser: Browser, page_file: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(page_file.as_uri())
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    assert page.evaluate(
        "[...document.querySelectorAll('.scroll')].every(box => box.tabIndex === 0 && box.ariaLabel)"
    )
    page.close()


def test_it_prints_with_its_closed_tables_open(browser: Browser, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    heights = page.evaluate(
        "[...document.querySelectorAll('details table, details ul')].map(one => one.getBoundingClientRect().height)"
    )
    assert heights
    assert min(heights) > 0
    page.close()
