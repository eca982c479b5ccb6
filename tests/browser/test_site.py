"""The documentation site as `make docs` writes it: search, accessibility, and nothing from elsewhere."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.screens import keep_screen
from tests.browser.test_report_page import RULES
from tests.documented import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PAGES = (
    "index.html",
    "tutorial.html",
    "how-to/new-store.html",
    "reference/cli.html",
    "reference/python.html",
)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing of requests."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "true", "PYTHONPATH": str(ROOT)}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, ""), built.stderr
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    context = browser.new_context(color_scheme=request.param, viewport={"width": 1360, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    context.close()


def test_pages_are_accessible_and_ask_nobody_else_for_anything(site: str, page: Page) -> None:
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda one: requests.append(one.url))
    page.on("console", lambda one: complaints.append(one.text))
    page.on("pageerror", lambda one: complaints.append(str(one)))
    for name in PAGES:
        page.goto(f"{site}/{name}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        found = Axe().run(page, options=RULES).response["violations"]
        assert [(name, one["id"], [node["target"] for node in one["nodes"]]) for one in found] == []
    assert [url for url in requests if not url.startswith((site, "data:", "blob:"))] == []
    assert complaints == []


def test_the_search_finds_a_command(site: str, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 1360, "height": 800})
    page.set_default_timeout(60_000)
    page.goto(f"{site}/index.html")
    page.keyboard.press("s")
    page.get_by_role("textbox", name="Search").press_sequentially("rollback", delay=50)
    hit = page.locator(".md-search-result__link", has_text="safegen rollback").first
    expect(hit).to_be_visible(timeout=60_000)
    keep_screen(page, "docs-search")
    hit.click()
    expect(page).to_have_url(f"{site}/reference/cli.html?h=rollback#safegen-rollback")
    page.close()


def test_every_link_of_the_navigation_leads_to_a_page(site: str, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{site}/index.html")
    links = page.eval_on_selector_all(
        ".md-nav a[href]", "links => [...new Set(links.map(link => link.href))]"
    )
    assert len(links) > 20
    assert {link: status for link in links if (status := page.request.get(link).status) != 200} == {}
    page.close()


def test_the_site_holds_the_schemas_and_no_source(site: str, browser: Browser) -> None:
    page = browser.new_page()
    assert page.request.get(f"{site}/schemas/config.v1.json").json()["title"] == "RunConfig"
    assert page.request.get(f"{site}/reference_pages.py").status == 404
    page.close()
