"""The wheel by itself: built, installed into an environment of its own, and run from a folder that is no checkout.

The environment's dependencies are those that the tests run with, put on its path: installing them anew would fetch
three gigabytes and show nothing more. The path entry carries no `.pth` files along, so an editable safegen stays out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.documented import ROOT
from tests.short_run import make_workbench

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=ROOT,
        check=True,
    )
    [built] = folder.glob("safegen-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=True)
    interpreter = folder / "bin" / "python"
    subprocess.run(
        [interpreter, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)],
        check=True,
        env=_environment(),
    )
    purelib = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    (Path(purelib) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def test_the_wheel_holds_types_configurations_policies_and_the_miniature(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "safegen/py.typed",
        "safegen/_data/configs/miniature.toml",
        "safegen/_data/policies/miniature.toml",
        "safegen/miniature/weights/pipeline/model_index.json",
        "flows/protect.py",
    } <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]
    assert wheel.stat().st_size < 60_000_000


def test_an_installed_wheel_retrains_the_miniature(python: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [python, "-c", "import safegen; print(safegen.__file__)"],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(python.parents[1])
    (tmp_path / "bench").mkdir()
    config = make_workbench(tmp_path / "bench").write_run(policy="lenient", store="folder")
    done = subprocess.run(
        [python.with_name("safegen"), "retrain", "--config", str(config), "--json"],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["outcome"] == "promoted"
    assert Path(summary["where"]["page"]).is_file()
