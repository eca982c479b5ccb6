"""Releases over a network that drops, delays, cuts, garbles and loses answers: none is lost, doubled or torn."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pytest

from safegen.adapters.s3_store import S3Store, open_s3_store
from safegen.errors import StorageError
from safegen.ports import ObjectStore
from safegen.release.audit import audit_problems, read_audit
from safegen.release.catalogue import list_releases
from safegen.release.channel import list_channels
from safegen.release.verify import verify_folder, verify_stored
from safegen.stack.control import borrow, s3_access
from tests.faulty_proxy import FAULTS, Fault, Weather, faulty_proxy
from tests.signed_releases import MODEL, VERIFIER, make_checkpoint, moved, pulled, released

pytestmark = [pytest.mark.integration, pytest.mark.timeout(280)]

Result = TypeVar("Result")
_ATTEMPTS = 20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("network") / "stack"
    with borrow(root, "s3"):
        yield root


@pytest.fixture
def line(root: Path) -> Iterator[tuple[S3Store, S3Store, Weather]]:
    """The store as it is, the same store over the proxy, and what the proxy does."""
    access = s3_access(root, "admin")
    location = replace(access.location, prefix=f"runs/{uuid.uuid4().hex}")
    port = urlsplit(location.endpoint_url or "").port
    assert port
    with faulty_proxy(port) as (address, weather):
        direct = open_s3_store(location, credentials=access.credentials, probe_prefix="probe")
        far = open_s3_store(
            replace(location, endpoint_url=address),
            credentials=access.credentials,
            probe_prefix="probe",
            timeout_s=1.0,
            attempts=3,
        )
        yield direct, far, weather


def persist(deed: Callable[[], Result]) -> Result:
    """Do what an operator or a scheduler does: the same again, until it works."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return deed()
        except StorageError:
            continue
    return deed()


@pytest.mark.parametrize("fault", FAULTS)
def test_no_release_is_lost_doubled_or_torn(
    line: tuple[S3Store, S3Store, Weather], tmp_path: Path, fault: Fault
) -> None:
    direct, far, weather = line
    checkpoints = [make_checkpoint(tmp_path / str(number), attn1=number) for number in (1, 2)]
    weather.fault, weather.every, weather.delay_s = fault, 11 if fault == "delay" else 7, 1.5
    for checkpoint in checkpoints:
        release = persist(lambda checkpoint=checkpoint: released(far, checkpoint))
        persist(lambda release=release: moved(far, "production", release.version))
    persist(lambda: pulled(far, "production", tmp_path / "out"))
    weather.every = 0
    assert weather.done >= 3
    require_whole(direct, ["1", "2"])
    assert verify_folder(tmp_path / "out", VERIFIER).release == f"{MODEL}@2"
    assert not list(tmp_path.glob(".out.*"))


def require_whole(store: ObjectStore, versions: list[str]) -> None:
    manifests = list_releases(store, MODEL)
    assert [one.version for one in manifests] == versions
    assert all(verify_stored(store, MODEL, version, VERIFIER).valid for version in versions)
    assert [entry.action for entry in read_audit(store, MODEL)] == ["publish", "promote"] * len(versions)
    assert audit_problems(store, MODEL, manifests, list_channels(store, MODEL)) == ()


@pytest.mark.parametrize("fault", ["drop", "delay", "slow-down"])
def test_a_network_that_is_gone_is_an_error_with_an_end(
    line: tuple[S3Store, S3Store, Weather], tmp_path: Path, fault: Fault
) -> None:
    direct, far, weather = line
    checkpoint = make_checkpoint(tmp_path / "1")
    weather.fault, weather.every = fault, 1
    began = time.monotonic()
    with pytest.raises(StorageError) as failed:
        released(far, checkpoint)
    assert time.monotonic() - began < 60
    assert len(str(failed.value).splitlines()) == 1
    weather.every = 0
    assert list_releases(direct, MODEL) == ()
    assert released(far, checkpoint).version == "1"
