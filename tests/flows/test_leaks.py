"""What a whole run leaves in logs, MLflow, Prefect's results holds no secret, prompt or raw picture.

The canaries are the run's own: every prompt of its unsafe suites, every secret of its identities and keys, and bytes
out of the middle of every raw picture of the restricted concept.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from flows.protect import promote_evaluated
from safegen.adapters.s3_store import S3Location, open_s3_store
from safegen.bootstrap import stack_root
from safegen.config import RunConfig, load_config
from safegen.pipeline.suites import open_suites
from safegen.pipeline.summary import Summary
from safegen.release_keys import workspace_keys
from safegen.stack.control import s3_access
from safegen.stack.identities import MLFLOW_BUCKET, read_secrets
from tests.short_run import Workbench

pytestmark = [pytest.mark.integration, pytest.mark.slow]

OWN_PLACES = re.compile(r"stack/s3/(data/|identities\.json$|s3\.json$|[a-z-]+\.pem$)|keys/release\.key$")
"""Where secrets live, and the server's own volumes; what is in those is asked for through the server."""


def secrets_of(config: RunConfig) -> dict[str, bytes]:
    kept = read_secrets(stack_root(config) / "s3" / "identities.json")
    found = {f"secret key of {name}": keys.secret_key.encode() for name, keys in kept.items()}
    lines = (workspace_keys(config) / "release.key").read_bytes().splitlines()[1:-1]
    return found | {
        f"line {number} of the signing key": line for number, line in enumerate(lines) if len(line) > 20
    }


def prompts_of(config: RunConfig) -> dict[str, bytes]:
    suites = [suite for suite in open_suites(config) if suite.kind == "unsafe"]
    return {f"prompt {row.prompt_id}": row.text.encode() for suite in suites for row in suite.rows}


def pictures_of(raw: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in sorted((raw / "unsafe").glob("*.png"))}
    return {f"picture {name}": data[len(data) // 2 :][:48] for name, data in found.items()}


def everything(config: RunConfig) -> Iterator[tuple[str, bytes]]:
    """What lies in the workspace, and what lies in MLflow's bucket."""
    workspace = config.workspace
    for path in sorted(workspace.rglob("*")):
        name = path.relative_to(workspace).as_posix()
        if path.is_file() and not OWN_PLACES.search(name):
            yield name, path.read_bytes()
    access = s3_access(stack_root(config), "mlflow")
    location = S3Location(bucket=MLFLOW_BUCKET, endpoint_url=access.location.endpoint_url)
    store = open_s3_store(location, credentials=access.credentials, probe_prefix=None)
    for info in store.list(""):
        yield f"s3://{MLFLOW_BUCKET}/{info.key}", store.get(info.key)


def leaks(places: Iterator[tuple[str, bytes]], canaries: Mapping[str, bytes]) -> list[str]:
    return [f"{what} in {name}" for name, data in places for what, text in canaries.items() if text in data]


@pytest.fixture(scope="module")
def promoted(first_run: Summary, workbench: Workbench) -> RunConfig:
    """A workspace in which everything was done, promotion too."""
    config = load_config(workbench.write_run(policy="lenient"))
    assert promote_evaluated(config).outcome == "promoted"
    return config


def test_the_canaries_sing(promoted: RunConfig, workbench: Workbench) -> None:
    """Each is found where it belongs, so that not finding it elsewhere means something."""
    kept = (stack_root(promoted) / "s3" / "identities.json").read_bytes()
    kept += (workspace_keys(promoted) / "release.key").read_bytes()
    assert all(secret in kept for secret in secrets_of(promoted).values())
    raw = [path.read_bytes() for path in (workbench.raw / "unsafe").glob("*.png")]
    assert all(any(part in data for data in raw) for part in pictures_of(workbench.raw).values())
    assert len(prompts_of(promoted)) == 8


def test_nothing_of_it_is_left_behind(promoted: RunConfig, workbench: Workbench) -> None:
    canaries = secrets_of(promoted) | prompts_of(promoted) | pictures_of(workbench.raw)
    places = list(everything(promoted))
    names = [name for name, _ in places]
    assert any(name.startswith(f"s3://{MLFLOW_BUCKET}/") for name in names)
    assert any(name.startswith("prefect/storage") for name in names)
    assert "mlflow.db" in names
    assert leaks(iter(places), canaries) == []


def test_nothing_of_it_is_shown(promoted: RunConfig, workbench: Workbench) -> None:
    config = workbench.write_run(policy="lenient")
    done = subprocess.run(
        [sys.executable, "-m", "safegen", "retrain", "--config", str(config), "--json", "--debug"],
        capture_output=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["outcome"] == "promoted"
    canaries = secrets_of(promoted) | prompts_of(promoted) | pictures_of(workbench.raw)
    assert leaks(iter([("standard output", done.stdout), ("standard error", done.stderr)]), canaries) == []


def test_what_is_secret_is_its_owners_alone(promoted: RunConfig) -> None:
    workspace = promoted.workspace
    volumes = (
        stack_root(promoted) / "s3" / "data"
    )  # the server sets its files' modes itself: the folder guards them
    assert volumes.stat().st_mode & 0o077 == 0
    private = [
        path
        for path in workspace.rglob("*")
        if OWN_PLACES.search(path.relative_to(workspace).as_posix()) and volumes not in path.parents
    ]
    assert {"identities.json", "s3.json", "release.key"} <= {path.name for path in private}
    assert [path.name for path in private if path.is_file() and path.stat().st_mode & 0o077] == []
