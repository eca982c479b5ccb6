"""What the documentation shows: its pages, its examples as modules, and the commands in its blocks."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "examples" not in path.parts),
)
_PROGRAMS = (
    *("accelerate", "bash", "docker", "export", "helm", "jq", "kubectl", "make", "mlflow", "model_signing"),
    *("openssl", "pip", "prefect", "python", "safegen"),
)
_FENCE = re.compile(r"^```(\w*).*?\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One command line of a page.

    Attributes:
        page: Path of the page below the repository.
        text: The line, without its comment and without `.venv/bin/`.
    """

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        """Its words."""
        return self.text.split()


def commands_of(page: Path) -> Iterator[Command]:
    """Yield the commands of a page: lines of `sh` blocks, and lines of indented blocks that begin with a program."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    shell = [line for kind, body in _FENCE.findall(text) if kind == "sh" for line in body.splitlines()]
    indented = [line.strip() for line in _FENCE.sub("", text).splitlines() if line.startswith("    ")]
    for line in (*shell, *(one for one in indented if _begins_with_program(one))):
        command = re.sub(r"\s+#.*$", "", line).strip().removeprefix(".venv/bin/")
        if command:
            yield Command(name, " ".join(command.split()))


def _begins_with_program(line: str) -> bool:
    first = line.removeprefix(".venv/bin/").split(maxsplit=1)
    return bool(first) and first[0] in _PROGRAMS and not re.match(r"\w+ (=|->)", line)


def example(name: str) -> ModuleType:
    """Import one of the documentation's examples."""
    spec = importlib.util.spec_from_file_location(f"documented_{name}", ROOT / f"docs/examples/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def examples_of_help() -> Iterator[Command]:
    """Yield the example that each command's help ends with, which the reference shows."""
    from typer.main import get_command

    from safegen.cli.app import app

    groups: list[Any] = [get_command(app)]
    while groups:
        for command in groups.pop().commands.values():
            if hasattr(command, "commands"):
                groups.append(command)
            else:
                yield Command("help", " ".join(str(command.help).partition("Example: ")[2].split()))
