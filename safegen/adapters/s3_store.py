"""An `ObjectStore` on any S3 that honours conditional writes, through boto3."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, final

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from safegen.adapters.conditional_writes import prove_conditional_writes
from safegen.domain.object_key import check_key, check_prefix
from safegen.errors import ObjectNotFoundError, PreconditionFailedError, StorageError
from safegen.ports import ObjectInfo

Read = TypeVar("Read")

_PART_BYTES = 8 << 20
_MULTIPART_FROM_BYTES = 16 << 20
_PARALLEL_PARTS = 4
_BODY_ATTEMPTS, _BODY_PAUSE_S = 4, 0.2
_BROKEN_BODY = (ResponseStreamingError, IncompleteReadError, ReadTimeoutError, FlexibleChecksumError)
_LOOPBACK = ("http://127.0.0.1", "http://localhost", "http://[::1]")


@dataclass(frozen=True)
class S3Credentials:
    """An access key of one identity; the secret stays out of every repr and log."""

    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True)
class S3Location:
    """Where an S3 bucket is.

    Attributes:
        bucket: Name of the bucket, which must exist.
        endpoint_url: Address of the server; None means AWS itself.
        region: Region for the signature.
        prefix: Key prefix inside the bucket that the store is confined to, without slashes at its ends.
    """

    bucket: str
    endpoint_url: str | None = None
    region: str = "us-east-1"
    prefix: str = ""


def s3_client(
    *,
    endpoint_url: str | None,
    region: str,
    credentials: S3Credentials | None,
    timeout_s: float = 60.0,
    attempts: int = 4,
) -> Any:
    """Return a boto3 S3 client with bounded time-outs and retries, and checksums both ways.

    It is `Any`, because boto3 makes its classes at run time and ships no types.

    Args:
        endpoint_url: Address of the server; None means AWS itself.
        region: Region for the signature.
        credentials: The identity; None means boto3's own chain (environment, profile, instance role).
        timeout_s: How long one response may take.
        attempts: How often a request is sent at most, with growing pauses, when the server or the network fails.
    """
    config = Config(
        connect_timeout=5,
        read_timeout=timeout_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
        request_checksum_calculation="when_supported",
        response_checksum_validation="when_supported",
        max_pool_connections=4 * _PARALLEL_PARTS,
        # A proxy from the environment cannot reach this machine's own loopback.
        proxies={} if (endpoint_url or "").startswith(_LOOPBACK) else None,
    )
    with translated("set up the client for", endpoint_url or "AWS S3"):
        try:
            return Session().client(
                "s3",
                endpoint_url=endpoint_url,
                region_name=region,
                aws_access_key_id=credentials.access_key if credentials else None,
                aws_secret_access_key=credentials.secret_key if credentials else None,
                config=config,
            )
        except ValueError as error:
            raise StorageError(f"{error}; expected an address such as http://127.0.0.1:8333") from error


def open_s3_store(
    location: S3Location,
    *,
    credentials: S3Credentials | None = None,
    probe_prefix: str | None,
    timeout_s: float = 60.0,
    attempts: int = 4,
) -> S3Store:
    """Open a bucket as an object store, after proving that it refuses conditional writes that must fail.

    Some servers accept `If-None-Match: *` and ignore it; a release committed there could be overwritten
    unseen.

    Args:
        location: Which bucket, where.
        credentials: The identity; None means boto3's own chain.
        probe_prefix: A key prefix that this identity may write and delete under (`probes`), for the proof.
            None skips it, which is right only for an identity that cannot write.
        timeout_s: How long one response may take.
        attempts: How often a request is sent at most, with growing pauses, when the server or the network fails.

    Raises:
        StorageError: The bucket cannot be reached or written, or ignores conditions.
    """
    client = s3_client(
        endpoint_url=location.endpoint_url,
        region=location.region,
        credentials=credentials,
        timeout_s=timeout_s,
        attempts=attempts,
    )
    store = S3Store(client, location)
    if probe_prefix is not None:
        prove_conditional_writes(store, f"{probe_prefix.strip('/')}/{uuid.uuid4().hex}")
    return store


@final
class S3Store:
    """Keeps objects in one bucket; an etag is the server's own, passed on as it came.

    boto3 clients may be shared by threads, and so may this store.
    """

    def __init__(self, client: Any, location: S3Location) -> None:
        """Wrap a client; `open_s3_store` is the way that proves the server first."""
        self._client = client
        self._bucket = location.bucket
        self._prefix = f"{check_key(location.prefix.strip('/'))}/" if location.prefix else ""

    @property
    def uri(self) -> str:
        """Where the store is: `s3://bucket[/prefix]`."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def get(self, key: str) -> bytes:
        """Return the whole content of an object, its checksum verified; see `ObjectStore.get`."""
        with translated("read", self._name(key)):
            return _until_whole(lambda: b"".join(self._blocks(key)))

    def head(self, key: str) -> ObjectInfo | None:
        """Describe an object, or return None when there is none; see `ObjectStore.head`."""
        try:
            with translated("describe", self._name(key)):
                answer = self._client.head_object(**self._at(key))
        except ObjectNotFoundError:
            return None
        return ObjectInfo(key, answer["ContentLength"], answer["ETag"])

    def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> ObjectInfo:
        """Write an object with one PUT that carries its SHA-256; see `ObjectStore.put`."""
        condition = ({"IfNoneMatch": "*"} if if_absent else {}) | (
            {"IfMatch": if_match} if if_match is not None else {}
        )
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        try:
            with translated("write", self._name(key)):
                answer = self._client.put_object(
                    **self._at(key), Body=data, ChecksumSHA256=checksum, **condition
                )
        except PreconditionFailedError as error:
            return self._own_retried_write(key, data, error)
        except ObjectNotFoundError as error:
            if if_match is None:
                raise
            raise PreconditionFailedError(f"object {key!r} is absent, expected etag {if_match}") from error
        if answer.get("ChecksumSHA256", checksum) != checksum:
            raise StorageError(
                f"{self._name(key)} was stored with another SHA-256 than was sent; write it again"
            )
        return ObjectInfo(key, len(data), answer["ETag"])

    def upload(self, key: str, path: Path) -> ObjectInfo:
        """Write a file's content, large ones in parts, with SHA-256; see `ObjectStore.upload`."""
        transfer = TransferConfig(
            multipart_threshold=_MULTIPART_FROM_BYTES,
            multipart_chunksize=_PART_BYTES,  # s3transfer raises it where 10,000 parts would not do
            max_concurrency=_PARALLEL_PARTS,
        )
        at = self._at(key)
        with translated("upload", self._name(key)):
            self._client.upload_file(
                str(path), at["Bucket"], at["Key"], ExtraArgs={"ChecksumAlgorithm": "SHA256"}, Config=transfer
            )
        info = self.head(key)
        size = path.stat().st_size
        if info is None or info.size_bytes != size:
            raise StorageError(
                f"{self._name(key)} is not the {size} bytes just uploaded; somebody else wrote it too"
            )
        return info

    def download(self, key: str, path: Path) -> None:
        """Stream an object's content to a file; see `ObjectStore.download`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        pending = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with translated("download", self._name(key)):
                _until_whole(lambda: self._write_blocks(key, pending))
            pending.replace(path)
        finally:
            pending.unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with `prefix`; see `ObjectStore.list`.

        They are sorted here, because some servers do not return them in byte order.
        """
        full_prefix = self._prefix + check_prefix(prefix)
        found: list[ObjectInfo] = []
        with translated("list", f"s3://{self._bucket}/{full_prefix}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=full_prefix
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    key = entry["Key"].removeprefix(self._prefix)
                    found.append(ObjectInfo(key, entry["Size"], entry["ETag"]))
        yield from sorted(found, key=lambda info: info.key.encode())

    def delete(self, key: str) -> None:
        """Remove an object if it is there; see `ObjectStore.delete`."""
        with translated("delete", self._name(key)):
            self._client.delete_object(**self._at(key))

    def _blocks(self, key: str) -> Iterator[bytes]:
        answer = self._client.get_object(**self._at(key), ChecksumMode="ENABLED")
        with closing(answer["Body"]) as body:  # its own context manager gives the stream without its checks
            yield from body.iter_chunks(1 << 20)

    def _write_blocks(self, key: str, path: Path) -> None:
        with path.open("wb") as file:
            file.writelines(self._blocks(key))

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + check_key(key)}

    def _name(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def _own_retried_write(self, key: str, data: bytes, error: PreconditionFailedError) -> ObjectInfo:
        """Tell a lost race from our own PUT that was done, lost its answer and was refused on being resent."""
        cause = error.__cause__
        retried = (
            isinstance(cause, ClientError) and cause.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
        )
        info = self.head(key) if retried else None
        if info is not None and self.get(key) == data:
            return info
        raise error


def _until_whole(read: Callable[[], Read]) -> Read:
    """Read once more, after a pause, where a body broke off or came garbled: boto3 asks again for answers only."""
    for attempt in range(_BODY_ATTEMPTS - 1):
        try:
            return read()
        except _BROKEN_BODY:
            time.sleep(_BODY_PAUSE_S * 2**attempt)
    return read()


@contextmanager
def translated(action: str, what: str) -> Generator[None]:
    """Turn what boto3 raises inside into the errors of `ObjectStore`.

    Args:
        action: What is being done, for the message: "read".
        what: To what: the object's URI.
    """
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        message = str(error.response.get("Error", {}).get("Message", ""))
        if code in ("NoSuchKey", "404", "NotFound"):
            raise ObjectNotFoundError(f"cannot {action} {what}: there is no such object") from error
        if code in ("PreconditionFailed", "412", "ConditionalRequestConflict"):
            raise PreconditionFailedError(
                f"cannot {action} {what}: it exists already or has changed; read it again"
            ) from error
        raise StorageError(
            f"cannot {action} {what}: the server answered {code} ({message}); check bucket, identity and its rights"
        ) from error
    except (BotoCoreError, Boto3Error) as error:
        raise StorageError(
            f"cannot {action} {what}: {' '.join(str(error).split())}; check that the endpoint is up and the "
            "keys are set"
        ) from error
    except OSError as error:
        raise StorageError(
            f"cannot {action} {what}: {error.strerror or error}; check the local file"
        ) from error
