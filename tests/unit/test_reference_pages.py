"""The pages of the site that are made from the code."""

from __future__ import annotations

import doctest
import importlib.util
import json
import re
from types import ModuleType

import pytest

from tests.documented import ROOT, examples_of_help


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_pages", ROOT / "docs" / "reference_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_own_examples_hold(pages: ModuleType) -> None:
    found = doctest.testmod(pages)
    assert (found.failed, found.attempted > 1) == (0, True)


def test_the_commands_page_has_every_command_its_options_and_its_example(pages: ModuleType) -> None:
    text = pages.command_page()
    for command in examples_of_help():
        assert f"\n{command.text}\n" in text
    assert "## safegen stack up\n" in text
    assert "| `--detector` | `nudenet` or `miniature` | `nudenet` | Who looks. |" in text
    assert "| `IMAGES` | path, repeatable | required | Image files: PNG, JPEG or WEBP. |" in text
    assert "| `--champion` | path |  | The champion's report.json. |" in text


@pytest.mark.parametrize("name", ["config", "policy", "report", "decision", "release-manifest"])
def test_a_schema_page_explains_every_key(pages: ModuleType, name: str) -> None:
    text = pages.schema_page(name, name)
    schema = json.loads((ROOT / "docs" / "schemas" / f"{name}.v1.json").read_text())
    for part in (schema, *schema.get("$defs", {}).values()):
        for key in part.get("properties", ()):
            assert f"| `{key}` |" in text
    headings = {heading.lower() for heading in re.findall(r"^## (\S+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= headings
    unexplained = re.findall(r"^\| `(\w+)` \|.*\|  \|$", text, re.MULTILINE)
    assert len(unexplained) <= text.count("\n| `") / 4, unexplained
