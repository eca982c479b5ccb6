"""What the runbook and prefect.yaml name: commands, deployments and files that are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prefect.flows import Flow
from prefect.utilities.importtools import import_object

from safegen.cli import main
from safegen.cli.app import app
from safegen.shipped import shipped_deployments

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "operations.md").read_text()
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
NAMES = {f"{one['entrypoint'].rpartition('.')[2]}/{one['name']}" for one in DEPLOYMENTS}


def commands() -> list[str]:
    """Return every `safegen …` of the runbook, without what a shell would do around it."""
    blocks = re.findall(r"^ {4}(?:\S+=\S+ )?(safegen .+)$", RUNBOOK, flags=re.MULTILINE)
    inline = re.findall(r"`(?:\S+=\S+ )?(safegen [^`]+)`", RUNBOOK.replace("\n", " "))
    lines = [re.split(r" {2,}#| > | && | \| ", line)[0] for line in blocks + inline]
    return sorted({" ".join(line.split()) for line in lines})


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_runbook_is_one(line: str) -> None:
    words = shlex.split(line.replace("…", "X"))[1:]
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, line
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, line
    assert len(commands()) > 20


def test_the_runbook_tells_of_the_deployments_there_are() -> None:
    told = set(re.findall(r"^\| `([\w-]+/[\w-]+)` \|", RUNBOOK, flags=re.MULTILINE))
    assert told == NAMES
    assert set(re.findall(r"prefect deployment run ([\w-]+/[\w-]+)", RUNBOOK)) <= NAMES


def test_files_that_the_runbook_names_are_there() -> None:
    named = set(re.findall(r"(?:infra|docs|configs|tests)/(?!compose/secrets)[\w./-]+\.\w+", RUNBOOK))
    assert len(named) > 6
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["name"])
def test_a_deployment_runs_a_flow_that_takes_its_parameters(deployment: dict[str, Any]) -> None:
    flow = import_object(deployment["entrypoint"])
    assert isinstance(flow, Flow)
    assert flow.name == deployment["entrypoint"].rpartition(".")[2]
    passed = set(deployment["parameters"])
    for trigger in deployment.get("triggers", []):
        passed |= set(trigger["parameters"])
    assert passed <= set(flow.parameters.properties)
    assert set(flow.parameters.required) <= passed
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert deployment["tags"] == ["safegen"]  # what automations go by


def test_deployments_are_shipped() -> None:
    assert shipped_deployments().name == "prefect.yaml"


def test_a_server_that_does_not_answer_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert main(["deploy"]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("safegen: cannot deploy")
    assert "see that PREFECT_API_URL answers" in message
