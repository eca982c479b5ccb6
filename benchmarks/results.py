"""Where every benchmark writes what it measured: `results.json` for programs, `RESULTS.md` for people.

results.json   {name: {"ratio", "ours", "theirs", "unit", "n"}}
RESULTS.md     a table of the same numbers, and a section a benchmark: what was compared, on which machine
"""

from __future__ import annotations

import json
import os
import platform
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
_LIBRARIES = ("torch", "diffusers", "transformers", "onnxruntime", "numpy", "pillow")
_TITLE = "# Benchmarks\n\n`make bench` measures them again; both sides of a ratio run in one process.\n"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two measurements of the same thing.

    Attributes:
        ours: Ours, in `unit`.
        theirs: That of what it is compared with, in `unit`.
        unit: Such as "triplets/s".
        n: How many were measured on each side.
    """

    ours: float
    theirs: float
    unit: str
    n: int

    @property
    def ratio(self) -> float:
        """Ours over theirs."""
        return self.ours / self.theirs


def record(name: str, comparison: Comparison, *, compared: str, bar: str, folder: Path = FOLDER) -> None:
    """Write a comparison into both files, in the place of an earlier one of that name, and print it.

    Args:
        name: Of the benchmark, such as "edit_sd".
        comparison: What was measured.
        compared: What was compared with what, in Markdown.
        bar: What is asked for, such as ">= 2.4".
        folder: Where the files are.
    """
    table = folder / "results.json"
    results = json.loads(table.read_text()) if table.is_file() else {}
    results[name] = {"ratio": comparison.ratio, **asdict(comparison)}
    _replace(table, json.dumps(dict(sorted(results.items())), indent=2) + "\n")
    page = folder / "RESULTS.md"
    sections = _sections(page.read_text()) if page.is_file() else {}
    sections[name] = f"{compared}\n\nAsked for: {bar}. Measured {datetime.now(UTC):%Y-%m-%d} on {machine()}."
    rows = [
        f"| `{key}` | {one['ratio']:.3g} | {one['ours']:.4g} | {one['theirs']:.4g} | {one['unit']} | {one['n']} |"
        for key, one in sorted(results.items())
    ]
    head = "| benchmark | ratio | ours | theirs | unit | n |\n|---|---|---|---|---|---|\n"
    body = "".join(f"\n## {key}\n\n{text}\n" for key, text in sorted(sections.items()))
    _replace(page, f"{_TITLE}\n{head}" + "\n".join(rows) + f"\n{body}")
    print(
        f"{name}: {comparison.ratio:.3g} ({comparison.ours:.4g} against {comparison.theirs:.4g} {comparison.unit})"
    )


def machine() -> str:
    """Describe this machine and the libraries on which a speed depends, in one line."""
    models = re.findall(r"model name\s*: (.+)", _read("/proc/cpuinfo"))
    memory = re.findall(r"MemTotal:\s+(\d+)", _read("/proc/meminfo"))
    parts = [models[0].strip() if models else platform.machine(), f"{os.cpu_count()} cores"]
    parts += [f"{int(kilobytes) / 2**20:.0f} GiB" for kilobytes in memory]
    parts += [f"Python {platform.python_version()}"]
    return ", ".join([*parts, *(f"{name} {metadata.version(name)}" for name in _LIBRARIES)])


def _sections(text: str) -> dict[str, str]:
    _, *parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).is_file() else ""


def _replace(path: Path, text: str) -> None:
    pending = path.with_name(f"{path.name}.part")
    pending.write_text(text)
    pending.replace(path)
