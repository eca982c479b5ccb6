"""What lies in infra/: held to the tools and schemas that will read it, and to what the commands make."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prefect.utilities.templating import apply_values

from safegen.config import load_config
from safegen.pipeline.preflight import check_inputs
from safegen.stack.service_secrets import make_service_secrets, read_environment

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
KUBERNETES = INFRA / "kubernetes"
REQUIRED = "SAFEGEN_REQUIRE_INFRA_TOOLS"


def tool(*names: str) -> str:
    """Return the first of these programs that is there; without one, CI fails and others skip."""
    if found := next(filter(None, map(shutil.which, names)), None):
        return found
    missing = f"none of {', '.join(names)} is installed: apt-get install docker-compose kubernetes-client"
    if os.environ.get(REQUIRED):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("services") / "secrets"
    make_service_secrets(folder)
    return folder


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """compose.yaml as Docker's own client reads it, beside secrets as the command makes them."""
    folder = tmp_path_factory.mktemp("composed") / "infra" / "compose"
    shutil.copytree(INFRA / "compose", folder, ignore=shutil.ignore_patterns("secrets"))
    make_service_secrets(folder / "secrets")
    shown = subprocess.run(
        [tool("docker-compose"), "--file", str(folder / "compose.yaml"), "config"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    content = yaml.safe_load(shown.stdout)
    missing = [one["file"] for one in content["secrets"].values() if not Path(one["file"]).is_file()]
    assert not missing
    return content


def test_compose_is_valid_and_opens_nothing_but_loopback(composed: dict[str, Any]) -> None:
    services = composed["services"]
    assert {"postgres", "s3", "mlflow", "prefect", "gpu-worker"} <= services.keys()
    published = {name: one["ports"] for name, one in services.items() if "ports" in one}
    assert list(published) == ["gateway"]
    assert all(str(port).startswith("127.0.0.1:") for port in published["gateway"])
    assert "gateway" not in services["s3"]["networks"]
    for name, one in services.items():
        assert re.search(r":[\w.-]*\d", one["image"]), f"{name} has no version"
    [device] = services["gpu-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert "gpu" in device["capabilities"]
    assert "--app-name=safegen" in services["mlflow"]["command"]


def test_no_secret_stands_in_a_file_of_git(secrets: Path) -> None:
    written = (INFRA / "compose" / "compose.yaml").read_text() + "".join(
        path.read_text() for path in KUBERNETES.glob("*.yaml")
    )
    assert not re.search(r"(?i)(password|secret_key|auth_string): *[^\s/{][^\n]*", _without_files(written))
    tracked = subprocess.run(
        ["git", "check-ignore", "-q", "infra/compose/secrets/release.key"], cwd=ROOT, check=False
    )
    assert tracked.returncode == 0
    for path in secrets.iterdir():
        assert path.stat().st_mode & 0o077 == 0 or path.name == "release.pub", path


def _without_files(text: str) -> str:
    return re.sub(r"\w*(?:_FILE|password): \{?(?:file: )?\S*/\S*", "", text)


def test_secrets_that_are_there_stay_as_they_are(secrets: Path) -> None:
    before = {path.name: path.read_bytes() for path in secrets.iterdir() if path.name != "mlflow-users"}
    (secrets / "mlflow-password").unlink()
    make_service_secrets(secrets)
    after = {path.name: path.read_bytes() for path in secrets.iterdir()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"mlflow-password", "worker.env"}
    worker = read_environment(secrets / "worker.env")
    assert worker["MLFLOW_TRACKING_PASSWORD"] == (secrets / "mlflow-password").read_text()
    assert "s3-admin" not in str(worker)


@pytest.mark.parametrize("folder", ["compose", "kubernetes"])
def test_the_runs_of_infra_are_runs(folder: str, secrets: Path, tmp_path: Path) -> None:
    text = (INFRA / folder / "run.toml").read_text()
    text = text.replace("/run/secrets/release_key", str(secrets / "release.key"))
    (tmp_path / "run.toml").write_text(
        re.sub(r"/(run/secrets|etc/safegen)/[\w./]+pub\w*", str(secrets / "release.pub"), text)
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SAFEGEN_SIGNING_KEY", (secrets / "release.key").read_text())
        check_inputs(load_config(tmp_path / "run.toml"))


def test_images_copy_what_is_there() -> None:
    files = list((INFRA / "images").glob("*.Dockerfile"))
    assert len(files) == 2
    sent = (ROOT / ".dockerignore").read_text()
    for file in files:
        for line in re.findall(r"^COPY (?!--from)(.+)$", file.read_text(), flags=re.MULTILINE):
            for source in line.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}\n" in sent, source
        assert re.search(r"^USER \d+$", file.read_text(), flags=re.MULTILINE)


def manifests() -> Iterator[dict[str, Any]]:
    built = subprocess.run(
        [tool("kubectl"), "kustomize", str(KUBERNETES)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    yield from yaml.safe_load_all(built.stdout)


def pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pod that a manifest starts, if it starts one."""
    spec = manifest.get("spec", {})
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    return [template["spec"]] if template else []


def test_manifests_fit_kubernetes_schemas_and_are_locked_down() -> None:
    found = list(manifests())
    assert len(found) > 10
    for manifest in found:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
        for pod in pods(manifest):
            assert pod["securityContext"]["runAsNonRoot"] is True
            for container in [*pod["containers"], *pod.get("initContainers", [])]:
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                assert container["resources"]["limits"]["memory"]
                assert container["image"].rpartition(":")[2][0].isdigit()


def test_every_secret_that_manifests_name_is_made(secrets: Path) -> None:
    script = [str(KUBERNETES / "create-secrets.sh"), str(secrets)]
    tool("kubectl")
    made = subprocess.run(script, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    names = {one["metadata"]["name"] for one in yaml.safe_load_all(made.stdout) if one}
    text = json.dumps([*manifests(), json.loads((KUBERNETES / "work-pool.json").read_text())])
    named = set(re.findall(r'"secretRef": \{"name": "([\w-]+)"|"secretName": "([\w-]+)"', text))
    assert {name for pair in named for name in pair if name} == names


def test_the_work_pool_starts_jobs_that_ask_for_gpus() -> None:
    template = json.loads((KUBERNETES / "work-pool.json").read_text())
    defaults = {
        name: one["default"] for name, one in template["variables"]["properties"].items() if "default" in one
    }
    values = {
        **defaults,
        "name": "run",
        "command": ["prefect", "flow-run", "execute"],
        "labels": {"run": "1"},
    }
    values |= {"env": [{"name": "A", "value": "b"}]}
    for gpus in ("1", "0"):
        job = apply_values(template["job_configuration"]["job_manifest"], values | {"gpus": gpus})
        kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
        [container] = job["spec"]["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == gpus
        assert container["image"].startswith("safegen-gpu-worker:")


def test_both_gateways_are_one() -> None:
    """Kustomize reads nothing outside its folder, hence two files."""
    compose, kubernetes = (INFRA / folder / "gateway.conf" for folder in ("compose", "kubernetes"))
    assert compose.read_text() == kubernetes.read_text()
