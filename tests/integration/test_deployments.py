"""Unattended runs: a server, the deployments of prefect.yaml, and workers that are killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.automations import crash_of_silent_runs
from flows.stage import GPU_TAG
from safegen.adapters.signing_keys import create_key_pair
from safegen.bootstrap import stack_root
from safegen.config import load_config
from safegen.stack import control
from tests.deployed_runs import DeployedRuns, Operators, connected, every_minute, operators, safegen
from tests.short_run import Workbench, make_workbench

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(900)]

MADE = ("ingest", "validate", "triplets", "edit", "evaluate")
KEPT = (*MADE, "gate", "report")
SILENCE_S = 45.0


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return make_workbench(tmp_path_factory.mktemp("deployed"))


@pytest.fixture(scope="module")
def told() -> Iterator[Operators]:
    with operators() as listening:
        yield listening


@pytest.fixture(scope="module")
def config(workbench: Workbench) -> Path:
    return workbench.write_run(policy="lenient")


@pytest.fixture(scope="module")
def deployed(workbench: Workbench, config: Path, told: Operators) -> Iterator[DeployedRuns]:
    """The stack of a workspace with all deployments, the weekly one each minute."""
    root = stack_root(load_config(config))
    [*_, prefect] = control.start(root, ("s3", "prefect"))
    try:
        file = every_minute(workbench.folder / "prefect.yaml", "weekly")
        words = ("deploy", "--config", str(config), "--file", str(file))
        safegen(*words, folder=workbench.folder, SAFEGEN_NOTIFY_URL=told.url)
        with connected(f"{prefect.url}/api", workbench.folder) as runs:
            yield runs
    finally:
        control.stop(root)


def test_deploying_twice_leaves_one_of_everything(
    deployed: DeployedRuns, workbench: Workbench, config: Path, told: Operators
) -> None:
    words = ("deploy", "--config", str(config), "--file", str(workbench.folder / "prefect.yaml"))
    safegen(*words, folder=workbench.folder, SAFEGEN_NOTIFY_URL=told.url)
    assert deployed.client.read_global_concurrency_limit_by_name(f"tag:{GPU_TAG}").limit == 1
    automations = [one.name for one in deployed.client.read_automations()]
    assert sorted(automations) == [
        "safegen: evaluate a registered candidate",
        "safegen: run without a heartbeat",
        "safegen: tell of models",
        "safegen: tell of runs",
    ]
    weekly = deployed.client.read_deployment_by_name("retrain/weekly")
    assert weekly.global_concurrency_limit is not None
    assert weekly.global_concurrency_limit.limit == 1
    assert [schedule.schedule.cron for schedule in weekly.schedules] == ["* * * * *"]


def test_doctor_sees_a_schedule_fire_and_leaves_nothing(
    deployed: DeployedRuns, workbench: Workbench, config: Path
) -> None:
    answer = json.loads(safegen("doctor", "--config", str(config), "--json", folder=workbench.folder))
    [found] = [check for check in answer["checks"] if check["name"] == "schedule"]
    assert found["state"] == "ok"
    assert "fired after" in found["detail"]
    assert not [flow.name for flow in deployed.client.read_flows() if "doctor" in flow.name]


def test_a_killed_run_is_marked_crashed_and_the_next_one_goes_on(
    deployed: DeployedRuns, told: Operators
) -> None:
    [automation] = deployed.client.read_automations_by_name("safegen: run without a heartbeat")
    deployed.client.update_automation(automation.id, crash_of_silent_runs(SILENCE_S))
    with deployed.worker() as worker:
        [killed, *_] = deployed.wait_for("scheduled run", lambda: deployed.runs_of("retrain/weekly"))
        deployed.wait_for(
            "stage that holds the GPU's slot",
            lambda: (task := deployed.tasks(killed.id).get("triplets")) and task.state_name == "Running",
        )
        assert GPU_TAG in deployed.tasks(killed.id)["triplets"].tags
        worker.vanish()
    assert deployed.state_of(killed) == "Running"  # nobody was left to say otherwise

    with deployed.worker():
        crashed = deployed.wait_for_state(killed, "Crashed")
        assert crashed.state is not None
        assert "no heartbeat for 45 s" in (crashed.state.message or "")
        deployed.wait_for("notice", lambda: told.heard_of("prefect.flow-run.Crashed"))

        later = [
            run for run in deployed.wait_for("next run", lambda: _ended(deployed, 1)) if run.id != killed.id
        ]
        stages = deployed.tasks(later[0].id)
        states = {name: task.state_name for name, task in stages.items()}
        assert (states["ingest"], states["validate"]) == ("Cached", "Cached")
        assert states["edit"] == states["promote"] == "Completed"
        assert later[0].state_name == "Promoted"
        deployed.wait_for("notice", lambda: told.heard_of("safegen.release.promoted", "short"))


def test_the_next_scheduled_run_reuses_every_stage(deployed: DeployedRuns) -> None:
    with deployed.worker():
        runs = deployed.wait_for("second scheduled run", lambda: _ended(deployed, 2))
    assert all(run.auto_scheduled for run in runs[:2])
    states = {name: task.state_name for name, task in deployed.tasks(runs[1].id).items()}
    assert {name: states[name] for name in KEPT} == dict.fromkeys(KEPT, "Cached")
    assert runs[1].state_name == "Promoted"
    deployed.pause("retrain/weekly")


def test_a_registered_candidate_is_evaluated(deployed: DeployedRuns) -> None:
    with deployed.worker():
        edited = deployed.start("edit/on-demand")
        deployed.wait_for_state(edited, "Completed")
        [evaluated, *_] = deployed.wait_for("evaluation", lambda: deployed.runs_of("evaluate/on-candidate"))
        assert evaluated.parameters["seed"] in (0, "0")
        done = deployed.wait_for_state(evaluated, "Completed")
    assert done.state is not None
    assert done.state.message == "nothing has changed"


def test_a_run_waits_for_an_approver_whoever_resumes_it(
    deployed: DeployedRuns, workbench: Workbench, config: Path
) -> None:
    alice, mallory = (create_key_pair(workbench.folder / name) for name in ("alice", "mallory"))
    reviewed = workbench.folder / "reviewed.toml"
    reviewed.write_text(
        f'{config.read_text()}\n[promote]\nchannel = "reviewed"\napprovers = ["{alice.public}"]\n'
    )
    workspace = load_config(reviewed).workspace
    with deployed.worker():
        run = deployed.start("promote/on-decision", config=str(reviewed))
        deployed.wait_for_state(run, "Suspended")
        [decision] = workspace.glob("evaluations/*/decision-*.json")

        def approve(key: Path) -> None:
            words = (
                "approve",
                str(decision),
                "--channel",
                "reviewed",
                "--key",
                str(key),
                "--run",
                str(run.id),
            )
            safegen(*words, "--config", str(reviewed), folder=workbench.folder)

        before = deployed.read(run).state_id
        approve(mallory.private)  # she can resume it, and gains nothing
        deployed.wait_for(
            "second suspension",
            lambda: (now := deployed.read(run)).state_name == "Suspended" and now.state_id != before,
        )
        approve(alice.private)
        deployed.wait_for_state(run, "Promoted")
    shown = safegen("releases", "short", "--config", str(reviewed), folder=workbench.folder)
    assert "short@reviewed is version 1" in shown
    assert "read and approved" in shown


def _ended(deployed: DeployedRuns, count: int) -> list:
    """Return the scheduled runs that completed, oldest first, once there are so many."""
    done = [
        run
        for run in deployed.runs_of("retrain/weekly")
        if run.auto_scheduled and run.state_name == "Promoted"
    ]
    return done if len(done) >= count else []
