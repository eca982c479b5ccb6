"""`safegen backup` on the local stack: one workspace's databases and buckets come back in another."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from safegen.bootstrap import stack_root
from safegen.cli import main
from safegen.config import load_config
from safegen.stack import control

pytestmark = pytest.mark.integration


def workspace(folder: Path, name: str) -> Path:
    text = Path("configs/miniature.toml").read_text()
    path = folder / f"{name}.toml"
    path.write_text(text.replace("seed = 0\n", f'seed = 0\nworkspace = "{folder / name}"\n', 1))
    return path


def test_a_workspace_comes_back_in_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = (workspace(tmp_path, name) for name in ("old", "new"))
    root = stack_root(load_config(old))
    control.start(root, ("s3",))
    try:
        control.open_store(root, "promoter").put("releases/m/1/manifest.json", b"{}")
        with closing(sqlite3.connect(tmp_path / "old" / "mlflow.db")) as connection, connection:
            connection.execute("CREATE TABLE runs (name TEXT)")
        assert main(["backup", "make", str(tmp_path / "copy"), "--config", str(old), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["files"] == 2
    finally:
        control.stop(root)

    assert main(["backup", "restore", str(tmp_path / "copy"), "--config", str(new)]) == 0
    root = stack_root(load_config(new))
    assert {one.state for one in control.status(root)} == {"stopped"}  # as it was before
    with closing(sqlite3.connect(tmp_path / "new" / "mlflow.db")) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("runs",)]
    control.start(root, ("s3",))
    try:
        assert control.open_store(root, "reader").get("releases/m/1/manifest.json") == b"{}"
    finally:
        control.stop(root)
    assert main(["backup", "restore", str(tmp_path / "copy"), "--config", str(new)]) == 2
    assert "restore into an empty one" in capsys.readouterr().err
