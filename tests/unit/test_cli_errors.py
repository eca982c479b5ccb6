"""What a user sees of mistakes: one line on standard error, the right exit code, one object with --json."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from safegen.bootstrap import miniature_checkpoint
from safegen.cli import main
from safegen.shipped import locate

Edit = Callable[[str], str]


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Edit], Path]:
    """Write the shipped run with its text changed; its workspace lies in tmp_path."""

    def write(change: Edit) -> Path:
        text = locate(Path("configs/miniature.toml")).read_text()
        text = text.replace("schema_version = 1", f'schema_version = 1\nworkspace = "{tmp_path / "work"}"', 1)
        path = tmp_path / "run.toml"
        path.write_text(change(text))
        return path

    return write


def _fails(
    capsys: pytest.CaptureFixture[str], words: list[str], exit_code: int, kind: str, *parts: str
) -> None:
    """Run a command with --json; it must end with this error, in one line and as one object."""
    assert main([*words, "--json"]) == exit_code
    seen = capsys.readouterr()
    [line] = seen.err.splitlines()
    assert line.startswith("safegen: ")
    error = json.loads(seen.out.splitlines()[-1])["error"]
    assert error == {"kind": kind, "message": line.removeprefix("safegen: ")}
    for part in parts:
        assert part in error["message"]


RUNS = ("retrain", "ingest", "edit", "evaluate", "promote", "doctor")


@pytest.mark.parametrize("command", RUNS)
def test_a_missing_configuration_is_named(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    _fails(capsys, [command, "--config", "nowhere/run.toml"], 2, "ConfigError", "nowhere/run.toml")


def test_an_unknown_key_is_named(written, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(lambda text: text.replace("learning_rate", "learning_rat"))
    _fails(capsys, ["retrain", "--config", str(path)], 2, "ConfigError", "'edit.learning_rat'", "spelling")


def test_a_wrong_value_is_named_with_what_is_expected(written, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(lambda text: text.replace('target = "exact"', 'target = "precise"'))
    _fails(capsys, ["edit", "--config", str(path)], 2, "ConfigError", "edit.target", "'precise'", "'exact'")


def test_a_broken_line_is_named(written, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(lambda text: text.replace('name = "emoji"', 'name = "emoji'))
    number = next(
        number for number, line in enumerate(path.read_text().splitlines(), 1) if line == 'name = "emoji'
    )
    _fails(capsys, ["ingest", "--config", str(path)], 2, "ConfigError", f"line {number}")


def test_a_missing_policy_is_refused_before_anything_starts(
    written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(lambda text: text.replace("policies/miniature.toml", "policies/none.toml"))
    _fails(capsys, ["retrain", "--config", str(path)], 2, "ConfigError", "policies/none.toml")
    assert not (tmp_path / "work").exists()


def test_a_checkpoint_in_pickle_form_is_refused_and_never_loaded(
    written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pickle would create a file if anything loaded it."""
    base, trace = tmp_path / "base", tmp_path / "loaded"
    shutil.copytree(miniature_checkpoint(), base)
    weights = next((base / "unet").glob("*.safetensors"))
    weights.unlink()
    # Calls io.open(trace, "w") when it is unpickled.
    pickled = f"cio\nopen\n(V{trace}\nVw\ntR.".encode()
    (base / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickled)
    path = written(lambda text: text.replace('source = "miniature"', f'source = "{base}"'))
    _fails(
        capsys,
        ["retrain", "--config", str(path)],
        2,
        "DataError",
        "diffusion_pytorch_model.bin",
        "safetensors",
    )
    assert not trace.exists()


def test_an_unreachable_store_is_infrastructure(
    written, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(_with_far_store)
    for identity in ("TRAINER", "PROMOTER", "READER"):
        monkeypatch.setenv(f"SAFEGEN_{identity}_ACCESS_KEY_ID", "key")
        monkeypatch.setenv(f"SAFEGEN_{identity}_SECRET_ACCESS_KEY", "not-a-secret")
    words = ["releases", "miniature", "--config", str(path)]
    _fails(capsys, words, 3, "StorageError", "s3://models", "http://127.0.0.1:9")


def test_missing_secrets_are_named(
    written, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(_with_far_store)
    monkeypatch.delenv("SAFEGEN_TRAINER_ACCESS_KEY_ID", raising=False)
    words = ["ingest", "--config", str(path)]
    _fails(capsys, words, 2, "ConfigError", "SAFEGEN_TRAINER_ACCESS_KEY_ID")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["retran"], "'retran'"),
        (["retrain", "--confg", "x.toml"], "--confg"),
        (["detect"], "images"),
        (["detect", "a.png", "--detector", "eyes"], "'eyes'"),
        (["gate", "--report", "none.json"], "none.json"),
        (["stack", "sideways"], "'sideways'"),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    _fails(capsys, words, 2, "UsageError", part, "--help")


def test_no_command_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    seen = capsys.readouterr()
    assert "retrain" in seen.out
    assert "no command is given" in seen.err


def test_a_release_without_channel_is_refused(written, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pull", "miniature", "./model", "--config", str(written(lambda text: text))]
    _fails(capsys, words, 2, "ConfigError", "MODEL@CHANNEL")


def _with_far_store(text: str) -> str:
    changed = text.replace(
        '[store]\nkind = "local"',
        '[store]\nkind = "s3"\nlocation = "models"\nendpoint_url = "http://127.0.0.1:9"',
    )
    assert tomllib.loads(changed)["store"]["kind"] == "s3"
    return changed
