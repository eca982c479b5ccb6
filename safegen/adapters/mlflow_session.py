"""One connection to MLflow: its client, the environment it reads while it works, and its errors in our words."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.errors import RegistryError

if TYPE_CHECKING:
    from boto3 import Session
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
# MLflow takes credentials and time-outs from the process environment alone, so calls take turns in setting it.
_environment_lock = threading.RLock()


class MlflowSession:
    """A tracking server or database, reached with explicit arguments.

    MLflow is imported when the first session is made, which takes seconds. Nothing global is changed for good: neither
    MLflow's current tracking URI nor, once a call has returned, the environment.
    """

    def __init__(
        self,
        tracking_uri: str,
        *,
        s3_endpoint_url: str | None = None,
        s3_access_key_id: str | None = None,
        s3_secret_access_key: str | None = None,
        timeout_s: int = 30,
        max_retries: int = 2,
    ) -> None:
        """Connect.

        Args:
            tracking_uri: `http(s)://…` of a server, or `sqlite:///path` of a database, made when it is missing.
            s3_endpoint_url: Where `s3://` artifacts are, if not at AWS.
            s3_access_key_id: With which key they are written; None leaves boto3 to find one.
            s3_secret_access_key: The key's secret.
            timeout_s: For how long one HTTP request may take.
            max_retries: How often a failed HTTP request is tried again.

        Raises:
            RegistryError: The URI is of another kind, or the database cannot be opened.
        """
        self.tracking_uri = _checked(tracking_uri)
        self._environment = _environment(
            MLFLOW_HTTP_REQUEST_TIMEOUT=str(timeout_s),
            MLFLOW_HTTP_REQUEST_MAX_RETRIES=str(max_retries),
            MLFLOW_DISABLE_TELEMETRY="true",
            MLFLOW_S3_ENDPOINT_URL=s3_endpoint_url,
            AWS_ACCESS_KEY_ID=s3_access_key_id,
            AWS_SECRET_ACCESS_KEY=s3_secret_access_key,
            AWS_DEFAULT_REGION="us-east-1" if s3_endpoint_url else None,
            AWS_MAX_ATTEMPTS=str(max_retries + 1),
        )
        self._s3_session: Session | None = None
        with self.call("open MLflow"):
            self.client = _connect(self.tracking_uri)

    @property
    def is_server(self) -> bool:
        """Whether a server answers, rather than a database file of this machine."""
        return self.tracking_uri.startswith(("http://", "https://"))

    @contextmanager
    def call(self, what: str) -> Iterator[None]:
        """Run vendor calls with this session's environment, and translate what they raise.

        Args:
            what: What is being done, as it completes "cannot …".

        Raises:
            RegistryError: MLflow, its database, its artifact store or the network failed.
        """
        with _environment_lock, _set_environment(self._environment), self._own_s3_client():
            try:
                yield
            except (RegistryError, KeyboardInterrupt, SystemExit):
                raise
            except Exception as error:
                if not _is_vendors(error):
                    raise
                reason = " ".join(str(error).split())[:300] or type(error).__name__
                raise RegistryError(
                    f"cannot {what} at {self.tracking_uri}: {reason}; check that it is up (safegen doctor)"
                ) from error

    @contextmanager
    def _own_s3_client(self) -> Iterator[None]:
        """Let MLflow write with this session's keys and no other's.

        boto3 reads keys once a process, for its default session, and MLflow keeps one client for each endpoint,
        whatever the keys were: without this the first session's keys would serve all that come after it.
        """
        key = self._environment.get("AWS_ACCESS_KEY_ID")
        if key is None:
            yield
            return
        import boto3
        from mlflow.store.artifact import s3_artifact_repo

        if self._s3_session is None:
            self._s3_session = boto3.Session(
                key,
                self._environment["AWS_SECRET_ACCESS_KEY"],
                region_name=self._environment.get("AWS_DEFAULT_REGION"),
            )
        before = boto3.DEFAULT_SESSION
        if before is not self._s3_session:
            s3_artifact_repo._cached_get_s3_client.cache_clear()  # noqa: SLF001  (there is no public way)
        boto3.DEFAULT_SESSION = self._s3_session
        try:
            yield
        finally:
            if before is not self._s3_session:
                boto3.DEFAULT_SESSION = before
                s3_artifact_repo._cached_get_s3_client.cache_clear()  # noqa: SLF001


def has_code(error: RegistryError, code: str) -> bool:
    """Tell whether MLflow gave this error code (such as RESOURCE_DOES_NOT_EXIST) as the cause of `error`."""
    return getattr(error.__cause__, "error_code", None) == code


def _checked(tracking_uri: str) -> str:
    if tracking_uri.startswith(("http://", "https://")):
        return tracking_uri.rstrip("/")
    if not tracking_uri.startswith(_SQLITE):
        raise RegistryError(
            f"cannot use {tracking_uri!r} as MLflow tracking URI: expected http://…, https://… or sqlite:///path"
        )
    database = Path(tracking_uri.removeprefix(_SQLITE)).absolute()
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegistryError(
            f"cannot make the folder of {database}: {error.strerror}; give a writable path"
        ) from error
    return f"{_SQLITE}{database}"


def _connect(tracking_uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    # A database is made, or brought to this version's schema, when it is first used: with a page of log lines.
    with _quiet("alembic", "mlflow.store.db.utils"):
        client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        if tracking_uri.startswith(_SQLITE):
            client.search_experiments(max_results=1)
    return client


def _is_vendors(error: Exception) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    # MLflow raises ValueError and TypeError for names and pictures that it does not take, boto3 its own base.
    vendors = (MlflowException, RequestException, SQLAlchemyError, BotoCoreError, ClientError, OSError)
    return isinstance(error, (*vendors, ValueError, TypeError)) or type(error).__module__.startswith("boto3")


def _environment(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


@contextmanager
def _set_environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
