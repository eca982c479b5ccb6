"""Commands that need no server: help, detect, doctor, and how answers are printed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safegen.bootstrap import resolve_location
from safegen.cli import main
from safegen.doctor.installation import compare_libraries, examine_licences

COMMANDS = (
    *(
        ["retrain"],
        ["ingest"],
        ["edit"],
        ["evaluate"],
        ["promote"],
        ["benchmark"],
        ["gate"],
        ["releases"],
        ["pull"],
        ["rollback"],
    ),
    *(["detect"], ["doctor"], ["stack", "up"], ["stack", "down"], ["stack", "status"]),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_teaches_with_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"Example: safegen {' '.join(command)}" in text
    assert "--json" in text


def _weapon() -> Path:
    return resolve_location("miniature:raw/unsafe/axe-00.png")


def _json(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_detect_prints_raw_detections(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(_weapon()), "--detector", "miniature", "--json"]) == 0
    document = _json(capsys)
    assert document["detector"]["name"] == "miniature"
    assert document["refused"] == []
    [image] = document["images"]
    assert (image["path"], image["width_px"], image["height_px"]) == (str(_weapon()), 48, 48)
    best = image["detections"][0]
    assert best["label"] == "AXE"
    assert 0.5 < best["score"] <= 1
    assert len(best["box"]) == 4


def test_detect_asks_nudenet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plain.png"
    Image.fromarray(np.full((64, 96, 3), 127, np.uint8)).save(path)
    assert main(["detect", str(path), "--json"]) == 0
    document = _json(capsys)
    assert document["detector"]["name"] == "nudenet"
    assert document["images"][0]["detections"] == []


def test_detect_refuses_what_is_no_image_and_judges_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "notes.png"
    bad.write_text("no picture")
    cut = tmp_path / "cut.png"
    cut.write_bytes(_weapon().read_bytes()[:-20])
    assert main(["detect", str(bad), str(_weapon()), str(cut), "--detector", "miniature", "--json"]) == 2
    seen = capsys.readouterr()
    document = json.loads(seen.out.splitlines()[-1])
    assert [one["path"] for one in document["images"]] == [str(_weapon())]
    assert [(one["path"], one["reason"]) for one in document["refused"]] == [
        (str(bad), "not_an_image"),
        (str(cut), "truncated"),
    ]
    assert len(seen.err.splitlines()) == 2


@pytest.mark.parametrize("name", ["missing.png", "."])
def test_detect_names_a_path_that_is_no_file(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["detect", str(tmp_path / name), "--detector", "miniature"]) == 2
    assert str(tmp_path / name) in capsys.readouterr().err


def test_detect_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(_weapon()), "--detector", "miniature"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{_weapon()}  48x48"
    assert lines[1].split()[0] == "AXE"


def _run_file(
    tmp_path: Path, store: str = 'kind = "folder"', policy: str = "policies/miniature.toml"
) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(f"""
        schema_version = 1
        model = "miniature"
        workspace = "{tmp_path / "work"}"
        ingest = {{name = "emoji", sources = [{{role = "unsafe", location = "miniature:raw/unsafe"}}]}}
        evaluate = {{suites = [{{name = "explicit", n = 4}}]}}
        gate = {{policy = "{policy}"}}
        [store]
        {store}
    """)
    return path


def _by_name(document: dict) -> dict[str, dict]:
    return {check["name"]: check for check in document["checks"]}


def test_doctor_finds_a_sound_installation_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--config", str(_run_file(tmp_path)), "--json"]) == 0
    document = _json(capsys)
    checks = _by_name(document)
    assert document["ok"] is True
    assert checks["torch"]["state"] == checks["prefect"]["state"] == checks["workspace"]["state"] == "ok"
    assert "writes once" in checks["object store"]["detail"]
    assert checks["licence"]["state"] == "note"
    assert "AGPL-3.0" in checks["licence"]["detail"]
    assert checks["stack mlflow"]["detail"].startswith("stopped")
    assert checks["gate"]["state"] == "ok"
    assert checks["gate"]["detail"] == "policies/miniature.toml refuses what is not proven"
    assert checks["schedule"]["state"] == "note"


def test_doctor_fails_where_a_run_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = tmp_path / "work"
    blocked.write_text("a file where the workspace should be")
    run = _run_file(tmp_path, policy="policies/none.toml")
    assert main(["doctor", "--config", str(run), "--json"]) == 3
    document = _json(capsys)
    checks = _by_name(document)
    assert document["ok"] is False
    assert {name for name, check in checks.items() if check["state"] == "failed"} >= {"inputs", "workspace"}
    assert "policies/none.toml" in checks["inputs"]["detail"]


def test_doctor_tells_of_a_prefect_server_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert main(["doctor", "--config", str(_run_file(tmp_path)), "--json"]) == 3
    checks = _by_name(_json(capsys))
    check = checks["prefect server"]
    assert check["state"] == checks["schedule"]["state"] == "failed"
    assert "http://127.0.0.1:9/api/health" in check["detail"]


def test_a_version_known_to_be_bad_is_explained() -> None:
    [bad] = compare_libraries(["fastapi<0.1"])
    assert bad.state == "failed"
    assert "Prefect's server cannot be imported" in bad.detail


def test_a_library_that_is_not_installed_is_named() -> None:
    [missing] = compare_libraries(["surely-not-installed>=1"])
    assert (missing.name, missing.state) == ("surely-not-installed", "failed")
    assert "is not installed; expected >=1" in missing.detail


def test_libraries_of_extras_and_other_platforms_are_not_asked_for() -> None:
    wanted = ["surely-not-installed>=1; extra == 'dev'", "surely-not-installed; sys_platform == 'none'"]
    assert list(compare_libraries(wanted)) == []


def test_the_licence_is_read_from_the_wheel() -> None:
    [found] = examine_licences()
    assert (found.state, "MIT" in found.detail) == ("note", True)


def test_doctor_leaves_nothing_in_the_store(tmp_path: Path) -> None:
    assert main(["doctor", "--config", str(_run_file(tmp_path))]) == 0
    store = tmp_path / "work" / "store"
    assert [path for path in store.rglob("*") if path.is_file() and path.name != "lock"] == []
