"""The local services, started, asked, killed and stopped for real."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import stat
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from safegen.adapters.s3_store import S3Location, S3Store, open_s3_store
from safegen.domain.digests import tree_digest
from safegen.errors import ObjectNotFoundError, StorageError
from safegen.stack import seaweedfs
from safegen.stack.control import ServiceStatus, open_store, s3_access, start, status, stop
from safegen.stack.processes import ProcessIdentity
from safegen.stack.state import read_state, write_state
from tests.signed_releases import moved, pulled, released

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("with space") / "stack"
    yield root
    stop(root)


@pytest.fixture(scope="module")
def running(root: Path) -> Path:
    start(root, ("s3",))
    return root


def by_name(statuses: tuple[ServiceStatus, ...]) -> dict[str, ServiceStatus]:
    return {each.name: each for each in statuses}


def refused(deed: Callable[..., object], *args: object) -> bool:
    try:
        deed(*args)
    except StorageError as error:
        if "AccessDenied" not in str(error):  # then the server is ill
            raise
        return True
    return False


def test_nothing_runs_before_the_first_start(tmp_path: Path) -> None:
    assert [each.state for each in status(tmp_path / "new")] == ["stopped"] * 3
    assert not (tmp_path / "new").exists()
    with pytest.raises(StorageError, match="safegen stack up"):
        s3_access(tmp_path / "new", "reader")


def test_each_identity_writes_its_own_places_only(running: Path) -> None:
    tops = ("blobs", "datasets", "runs", "releases", "channels", "audit")
    allowed: dict[str, set[str]] = {
        "trainer": {"blobs", "datasets", "runs"},
        "promoter": {"blobs", "releases", "channels", "audit"},
        "reader": set(),
    }
    for identity, places in allowed.items():
        store = open_store(running, identity)
        written = {top for top in tops if not refused(store.put, f"{top}/by-{identity}", b"x")}
        assert written == places, identity
    reader, trainer = open_store(running, "reader"), open_store(running, "trainer")
    assert reader.get("releases/by-promoter") == b"x"
    assert "channels/by-promoter" in [info.key for info in reader.list("")]
    for key in ("releases/by-promoter", "channels/by-promoter", "audit/by-promoter"):
        assert refused(trainer.delete, key)
        assert refused(reader.delete, key)
    assert reader.head("releases/by-promoter") is not None


def test_the_promoter_releases_what_the_reader_pulls_and_the_trainer_cannot(
    running: Path, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    save_file({"attn1.weight": np.ones(9, dtype=np.float32)}, tmp_path / "new" / "model.safetensors")
    digest = tree_digest(tmp_path / "new")
    decision = json.dumps({"outcome": "pass", "checkpoint_sha256": digest}).encode()
    assert refused(lambda: released(open_store(running, "trainer"), tmp_path / "new", decision))
    promoter = open_store(running, "promoter")
    release = released(promoter, tmp_path / "new", decision)
    moved(promoter, "production", release.version)

    reader = open_store(running, "reader")
    assert pulled(reader, "production", tmp_path / "pulled") == release
    assert refused(lambda: moved(reader, "staging", "1"))


def test_the_mlflow_identity_and_the_bucket_are_kept_apart(running: Path) -> None:
    endpoint = s3_access(running, "mlflow").location.endpoint_url
    artifacts = S3Location("mlflow", endpoint)
    keys = {name: s3_access(running, name).credentials for name in ("mlflow", "promoter")}
    open_s3_store(artifacts, credentials=keys["mlflow"], probe_prefix="probes")
    theirs = open_s3_store(S3Location("safegen", endpoint), credentials=keys["mlflow"], probe_prefix=None)
    assert refused(theirs.put, "releases/x", b"x")
    assert refused(lambda: list(theirs.list("")))
    other = open_s3_store(artifacts, credentials=keys["promoter"], probe_prefix=None)
    assert refused(other.put, "x", b"x")


def test_a_wrong_secret_or_bucket_is_a_clear_error(running: Path) -> None:
    access = s3_access(running, "trainer")
    wrong = type(access.credentials)(access.credentials.access_key, "guessed")
    with pytest.raises(StorageError, match="SignatureDoesNotMatch"):
        open_s3_store(access.location, credentials=wrong, probe_prefix="probes")
    nowhere = S3Location("nowhere", access.location.endpoint_url)
    with pytest.raises(StorageError, match="s3://nowhere"):
        open_s3_store(nowhere, credentials=access.credentials, probe_prefix="probes")


def test_secrets_are_the_owners_alone_and_every_port_is_on_loopback(running: Path) -> None:
    for path in [running, *running.rglob("*")]:
        if path.suffix in (".json", ".toml", ".key") or path == running:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    process = psutil.Process(by_name(status(running))["s3"].pid)
    listening = {
        conn.laddr.ip for conn in process.net_connections("tcp") if conn.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    secret = s3_access(running, "admin").credentials.secret_key
    assert secret not in " ".join(process.cmdline())
    assert secret not in (running / "logs" / "s3.log").read_text()


def test_the_inner_ports_let_nobody_in_without_a_certificate(running: Path) -> None:
    ports = dict(zip(seaweedfs.PORT_FLAGS, read_state(running).ports["s3"], strict=True))
    context = ssl.create_default_context(cafile=str(running / "s3" / "ca.pem"))
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    for name in ("master.port.grpc", "volume.port.grpc", "filer.port.grpc"):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            greet_in_http2(ports[name], context)
    for name, path in (("master.port", "/dir/assign"), ("filer.port", "/buckets/safegen/")):
        with pytest.raises(urllib.error.HTTPError, match="40"):
            urllib.request.urlopen(f"http://127.0.0.1:{ports[name]}{path}", timeout=5)


def greet_in_http2(port: int, context: ssl.SSLContext) -> None:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain) as inner,
    ):
        inner.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        if not inner.recv(64):
            raise ConnectionResetError("closed without a word")


def test_starting_again_changes_nothing(running: Path) -> None:
    before = status(running)
    assert start(running, ("s3",)) == before


def test_a_killed_server_is_noticed_and_comes_back_with_its_data_and_address(running: Path) -> None:
    store = open_store(running, "promoter")
    store.put("releases/kept", b"acknowledged")
    before = by_name(status(running))["s3"]
    assert before.pid is not None
    os.killpg(before.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(before.pid)] if psutil.pid_exists(before.pid) else [], timeout=5)

    assert by_name(status(running))["s3"].state == "died"
    with pytest.raises(StorageError, match="does not run"):
        s3_access(running, "reader")
    after = by_name(start(running, ("s3",)))["s3"]
    assert (after.state, after.url) == ("running", before.url)
    assert open_store(running, "reader").get("releases/kept") == b"acknowledged"


def test_stop_leaves_a_stranger_under_a_recorded_pid_alone(running: Path) -> None:
    stop(running)
    state = read_state(running)
    stranger = ProcessIdentity(pid=os.getpid(), started=psutil.Process().create_time() - 3600)
    write_state(running, state.with_service("s3", state.ports["s3"], stranger))
    assert by_name(status(running))["s3"].state == "died"
    assert by_name(stop(running))["s3"].state == "stopped"  # and this process lives to say so


def test_taken_ports_give_new_ones_and_the_data_stays(running: Path) -> None:
    start(running, ("s3",))
    open_store(running, "promoter").put("releases/moved", b"1")
    stop(running)
    port = read_state(running).ports["s3"][0]
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        start(running, ("s3",))
    assert read_state(running).ports["s3"][0] != port
    store: S3Store = open_store(running, "promoter")
    assert store.get("releases/moved") == b"1"
    store.put("releases/after", b"2")
    with pytest.raises(ObjectNotFoundError):
        store.get("releases/never")


def test_a_server_that_cannot_start_says_why_and_is_not_left_behind(tmp_path: Path) -> None:
    (tmp_path / "s3" / "data").mkdir(parents=True)
    (tmp_path / "s3" / "data" / "filerldb2").write_text("no folder")
    with pytest.raises(StorageError, match=r"s3 .*see .*s3\.log"):
        start(tmp_path, ("s3",), timeout_s=20)
    assert by_name(status(tmp_path))["s3"].state == "stopped"


@pytest.mark.slow
def test_the_whole_stack_comes_up_answers_and_goes_down(running: Path) -> None:
    up = by_name(start(running, timeout_s=200))
    assert {each.state for each in up.values()} == {"running"}
    family = [member for each in up.values() for member in psutil.Process(each.pid).children(recursive=True)]
    for name, path in (("mlflow", "/health"), ("prefect", "/api/health")):
        with urllib.request.urlopen(f"{up[name].url}{path}", timeout=30) as answer:
            assert answer.status == 200
    artifact = f"{up['mlflow'].url}/api/2.0/mlflow-artifacts/artifacts/grids/one.txt"
    with urllib.request.urlopen(urllib.request.Request(artifact, data=b"grid", method="PUT"), timeout=60):
        pass
    with urllib.request.urlopen(artifact, timeout=60) as answer:
        assert answer.read() == b"grid"
    access = s3_access(running, "mlflow")
    stored = open_s3_store(
        S3Location("mlflow", access.location.endpoint_url), credentials=access.credentials, probe_prefix=None
    )
    assert stored.get("artifacts/grids/one.txt") == b"grid"
    assert not any(secret in " ".join(member.cmdline()) for member in family for secret in _secrets(running))
    assert {each.state for each in stop(running)} == {"stopped"}
    assert not [
        member for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE
    ]


def _secrets(root: Path) -> list[str]:
    start(root, ("s3",))
    return [s3_access(root, name).credentials.secret_key for name in ("admin", "mlflow", "promoter")]
