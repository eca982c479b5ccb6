"""The services of infra/compose without containers: one retrain, refused writes, and a backup.

Commands, settings and secrets are those of compose.yaml; addresses alone are those of this machine.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from botocore.exceptions import ClientError

from safegen.adapters.s3_buckets import ensure_bucket
from safegen.adapters.s3_store import S3Credentials, S3Location, S3Store, open_s3_store, s3_client
from safegen.adapters.signing import ModelVerifier
from safegen.adapters.signing_keys import read_public_key
from safegen.errors import StorageError
from safegen.release.catalogue import list_releases
from safegen.release.channel import read_channel
from safegen.release.verify import verify_stored
from safegen.stack.backup import restore_backup
from safegen.stack.identities import read_secrets
from safegen.stack.processes import free_ports, start_process, stop_process
from safegen.stack.seaweedfs import PORT_FLAGS, seaweedfs
from safegen.stack.service_secrets import Hosts, make_service_secrets, read_environment
from tests.deployed_runs import ROOT, connected, safegen
from tests.postgres import Postgres, postgres_server
from tests.short_run import make_workbench

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(900)]

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "infra" / "compose" / "compose.yaml").read_text())[
    "services"
]


@dataclass(frozen=True)
class Topology:
    """Everything that runs."""

    folder: Path
    secrets: Path
    postgres: Postgres
    s3_url: str
    mlflow_url: str
    prefect_url: str
    config: Path

    @property
    def trust(self) -> dict[str, str]:
        authority = str(self.secrets / "ca.pem")
        return {"AWS_CA_BUNDLE": authority, "REQUESTS_CA_BUNDLE": authority}

    @property
    def client(self) -> dict[str, str]:
        worker = read_environment(self.secrets / "worker.env")
        return {**worker, **self.trust, "PREFECT_API_URL": f"{self.prefect_url}/api"}

    def keys(self, identity: str) -> S3Credentials:
        return read_secrets(self.secrets / "identities.json")[identity]  # type: ignore[index]

    def s3(self, identity: str) -> Any:
        return s3_client(
            endpoint_url=self.s3_url, region="us-east-1", credentials=self.keys(identity), attempts=1
        )

    def store(self, identity: str, bucket: str = "safegen") -> S3Store:
        return open_s3_store(
            S3Location(bucket, self.s3_url), credentials=self.keys(identity), probe_prefix=None
        )


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    folder = tmp_path_factory.mktemp("topology")
    bench = make_workbench(folder)
    secrets, ports = folder / "secrets", free_ports(len(PORT_FLAGS) + 2)
    mlflow_port, prefect_port = ports[-2:]
    make_service_secrets(secrets, Hosts(s3=("127.0.0.1",)))
    password = (secrets / "postgres-password").read_text()
    with ExitStack() as running, pytest.MonkeyPatch.context() as environment:
        postgres = running.enter_context(postgres_server("safegen", password))
        postgres.create("mlflow", "prefect")
        found = Topology(
            folder,
            secrets,
            postgres,
            f"https://127.0.0.1:{ports[0]}",
            f"http://127.0.0.1:{mlflow_port}",
            f"http://127.0.0.1:{prefect_port}",
            folder / "run.toml",
        )
        for name, value in found.trust.items():
            environment.setenv(name, value)

        def run(name: str, command: list[str], variables: Mapping[str, str], folder: Path = folder) -> None:
            log = found.folder / f"{name}.log"
            process = start_process(command, folder=folder, log=log, environment={**found.trust, **variables})
            running.callback(stop_process, process)

        _start_s3(found, ports[:-2], run)
        variables = {**_settings("mlflow", secrets), "MLFLOW_S3_ENDPOINT_URL": found.s3_url}
        variables["SAFEGEN_GUARD_PUBLIC_KEYS"] = str(secrets / "release.pub")
        variables["MLFLOW_BACKEND_STORE_URI"] = postgres.uri("mlflow")
        run("mlflow", _command("mlflow", mlflow_port), variables)
        variables = {**_settings("prefect", secrets), "PREFECT_HOME": str(folder / "prefect-server")}
        database = postgres.uri("prefect").replace("postgresql", "postgresql+asyncpg")
        variables["PREFECT_API_DATABASE_CONNECTION_URL"] = database
        (folder / "prefect-server").mkdir()
        run("prefect", _command("prefect", prefect_port), variables)
        text = bench.write_run(policy="lenient").read_text()
        text = text.replace(
            'store = { kind = "local" }',
            f'store = {{ kind = "s3", location = "safegen", endpoint_url = "{found.s3_url}" }}\n'
            f'tracking = {{ uri = "{found.mlflow_url}" }}\n'
            f'promote = {{ signing = {{ kind = "file", private_key = "{secrets / "release.key"}" }} }}',
        )
        found.config.write_text(text)
        for url in (f"{found.mlflow_url}/health", f"{found.prefect_url}/api/health"):
            _wait_until_healthy(url, found.folder)
        yield found


def _start_s3(found: Topology, ports: list[int], run: Callable[..., None]) -> None:
    service = seaweedfs(found.folder / "s3", tuple(ports))
    own = [
        flag for flag in COMPOSE["s3"]["command"] if re.match(r"-s3\.(config|cert\.file|key\.file)=", flag)
    ]
    files = {"s3_identities": "s3.json", "s3_certificate": "s3.pem", "s3_key": "s3.key"}
    for name, file in files.items():
        own = [flag.replace(f"/run/secrets/{name}", str(found.secrets / file)) for flag in own]
    command = [part for part in service.command if not part.startswith("-s3.config=")]
    run("s3", [*command, *own], dict(service.environment), service.folder)
    made = [part.replace("https://s3:8333", found.s3_url) for part in COMPOSE["buckets"]["command"]]
    admin = read_environment(found.secrets / "s3-admin.env")
    safegen(*made[1:], folder=found.folder, **admin, **found.trust)


def _command(service: str, port: int) -> list[str]:
    """Return a service's command with this machine's address; its program is a module of this interpreter."""
    words = [str(word) for word in COMPOSE[service]["command"]]
    words = [re.sub(r"^--port=.*", f"--port={port}", word) for word in words]
    words = [re.sub(r"^--host=.*", "--host=127.0.0.1", word) for word in words]
    words = [re.sub(r"^--allowed-hosts=.*", f"--allowed-hosts=127.0.0.1:{port}", word) for word in words]
    return [sys.executable, "-m", *words]


def _settings(service: str, secrets: Path) -> dict[str, str]:
    section = COMPOSE[service]
    own = {name: str(value) for name, value in section["environment"].items() if not name.endswith("BUNDLE")}
    [file] = section["env_file"]
    return {**own, **read_environment(secrets / Path(file).name)}


def _wait_until_healthy(url: str, folder: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            if requests.get(url, timeout=5).status_code == 200:
                return
        except requests.RequestException:
            pass
        time.sleep(0.5)
    logs = {path.name: path.read_text()[-1500:] for path in folder.glob("*.log")}
    pytest.fail(f"{url} is not healthy: {logs}")


@pytest.fixture(scope="module")
def retrained(topology: Topology) -> None:
    """One run through the deployment and a worker's process."""
    safegen("deploy", "--config", str(topology.config), folder=topology.folder, **topology.client)
    with connected(f"{topology.prefect_url}/api", topology.folder, **topology.client) as runs, runs.worker():
        run = runs.start("retrain/weekly")
        runs.wait_for_state(run, "Promoted", "Failed", "Crashed", timeout_s=600)
        state = runs.read(run).state
        assert state is not None
        assert state.name == "Promoted", state.message


def test_a_whole_retrain_through_a_deployment_ends_in_a_proven_release(
    topology: Topology, retrained: None
) -> None:
    store = topology.store("reader")
    channel = read_channel(store, "short", "production")
    assert channel is not None
    verifier = ModelVerifier([read_public_key(topology.secrets / "release.pub")])
    assert verify_stored(store, "short", channel.version, verifier).valid
    aliases = topology.postgres.rows("mlflow", "SELECT name, alias FROM registered_model_aliases")
    assert {("short", "candidate"), ("short", "champion")} <= set(aliases)
    artifacts = [info.key for info in topology.store("mlflow", "mlflow").list("artifacts/")]
    assert any(key.endswith("report.json") for key in artifacts)


def test_prefect_lets_nobody_in_without_its_password(topology: Topology) -> None:
    answer = requests.post(f"{topology.prefect_url}/api/flows/filter", json={}, timeout=30)
    assert answer.status_code == 401


def test_the_server_refuses_every_write_of_the_trainer_to_releases_and_channels(
    topology: Topology, retrained: None
) -> None:
    kept = {
        info.key: info.etag
        for prefix in ("releases/", "channels/")
        for info in topology.store("promoter").list(prefix)
    }
    assert len(kept) >= 4
    trainer, bucket = topology.s3("trainer"), "safegen"
    source = {"Bucket": bucket, "Key": min(kept)}
    for key in (*kept, "releases/short/2/manifest.json", "channels/short/new.json"):
        here = {"Bucket": bucket, "Key": key}
        attempts: dict[str, Callable[[], object]] = {
            "put": lambda here=here: trainer.put_object(**here, Body=b"x"),
            "put once": lambda here=here: trainer.put_object(**here, Body=b"x", IfNoneMatch="*"),
            "swap": lambda here=here: trainer.put_object(
                **here, Body=b"x", IfMatch=kept.get(here["Key"], '"0"')
            ),
            "copy": lambda here=here: trainer.copy_object(**here, CopySource=source),
            "multipart": lambda here=here: trainer.create_multipart_upload(**here),
            "delete": lambda here=here: trainer.delete_object(**here),
            "tags": lambda here=here: trainer.put_object_tagging(**here, Tagging={"TagSet": []}),
        }
        for name, attempt in attempts.items():
            assert _refusal(attempt) == "AccessDenied", f"{name} {key}"
    many = trainer.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in kept]})
    assert {error["Code"] for error in many["Errors"]} == {"AccessDenied"}
    assert not many.get("Deleted")
    now = {
        info.key: info.etag
        for prefix in ("releases/", "channels/")
        for info in topology.store("promoter").list(prefix)
    }
    assert now == kept


def _refusal(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "accepted"


def test_a_certificate_that_nobody_trusts_is_refused(
    topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(StorageError, match=r"(?i)certificate"):
        list(topology.store("reader").list(""))


def test_a_backup_brings_databases_and_buckets_back(topology: Topology, retrained: None) -> None:
    copy = topology.folder / "copy"
    variables = {
        **read_environment(topology.secrets / "s3-admin.env"),
        **topology.trust,
        "MLFLOW_BACKEND_STORE_URI": topology.postgres.uri("mlflow"),
        "PREFECT_API_DATABASE_CONNECTION_URL": topology.postgres.uri("prefect").replace(
            "sql:", "sql+asyncpg:"
        ),
    }
    safegen(
        "backup", "make", str(copy), "--config", str(topology.config), folder=topology.folder, **variables
    )

    topology.postgres.create("mlflow_back", "prefect_back")
    for bucket in ("safegen-back", "mlflow-back"):
        ensure_bucket(topology.s3("admin"), bucket)
    back = {name: topology.store("admin", f"{name}-back") for name in ("safegen", "mlflow")}
    restore_backup(
        copy, {name: topology.postgres.uri(f"{name}_back") for name in ("mlflow", "prefect")}, back
    )

    for database, table in (("mlflow", "model_versions"), ("mlflow", "metrics"), ("prefect", "deployment")):
        query = f"SELECT count(*) FROM {table}"
        before, after = (topology.postgres.rows(name, query) for name in (database, f"{database}_back"))
        assert before == after != [(0,)]
    for name, store in back.items():
        original = {(info.key, info.size_bytes) for info in topology.store("admin", name).list("")}
        assert {(info.key, info.size_bytes) for info in store.list("")} == original
    verifier = ModelVerifier([read_public_key(topology.secrets / "release.pub")])
    [release] = list_releases(back["safegen"], "short")
    assert verify_stored(back["safegen"], "short", release.version, verifier).valid
