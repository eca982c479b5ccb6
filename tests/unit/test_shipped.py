from __future__ import annotations

from pathlib import Path

import pytest

from safegen.errors import ConfigError
from safegen.shipped import locate, shipped_folder


def test_a_shipped_run_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = locate(Path("configs/miniature.toml"))
    assert found.is_file()
    assert found.parent == shipped_folder("configs")


def test_the_callers_own_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "configs" / "miniature.toml"
    own.parent.mkdir()
    own.write_text("")
    assert locate(Path("configs/miniature.toml")).resolve() == own


@pytest.mark.parametrize("name", ["configs/none.toml", "elsewhere/miniature.toml", "configs"])
def test_a_missing_file_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=name):
        locate(Path(name))
