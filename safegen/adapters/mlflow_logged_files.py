"""The logged models of the MLflow server that this code runs in, and the digest of their files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit

from safegen.adapters.mlflow_pyfunc import MLMODEL, is_own_description
from safegen.adapters.promotion_proof import LoggedModelFacts, RefusedMoveError
from safegen.domain.digests import digest_json, sha256_file
from safegen.errors import DataError

_PROXIED = "mlflow-artifacts"
_MOST_FILES = 10_000


@final
class ServedLoggedModels:
    """`LoggedModels` of this server. Digests are kept, because nobody can write a finished model through the server."""

    def __init__(self, artifact_roots: Sequence[str]) -> None:
        """Say where files may be.

        Args:
            artifact_roots: URIs under which logged models may lie besides the server's own `mlflow-artifacts:/`.
        """
        self._roots = tuple(f"{root.rstrip('/')}/" for root in artifact_roots)
        self._digests: dict[tuple[str, str], str] = {}

    def read(self, model_id: str) -> LoggedModelFacts:
        """Return what the server says of a logged model; see `LoggedModels.read`."""
        from mlflow.entities import LoggedModelStatus
        from mlflow.exceptions import MlflowException
        from mlflow.server import handlers

        try:
            model = handlers._get_tracking_store().get_logged_model(model_id)  # noqa: SLF001  (the only way)
        except MlflowException as error:
            raise RefusedMoveError(f"logged model {model_id} is not known here: {error.message}") from error
        return LoggedModelFacts(model_id, model.status == LoggedModelStatus.READY, model.artifact_location)

    def digest(self, model: LoggedModelFacts) -> str:
        """Return the checkpoint digest of a logged model's files; see `LoggedModels.digest`."""
        from botocore.exceptions import BotoCoreError, ClientError
        from mlflow.exceptions import MlflowException

        key = (model.model_id, model.location)
        if key not in self._digests:
            try:
                self._digests[key] = self._hash(model)
            except (MlflowException, OSError, BotoCoreError, ClientError, DataError) as error:
                raise RefusedMoveError(f"cannot read the files of {model.model_id}: {error}") from error
        return self._digests[key]

    def _hash(self, model: LoggedModelFacts) -> str:
        repository, prefix = self._open(model)
        digests: dict[str, str] = {}
        with tempfile.TemporaryDirectory(prefix="safegen-guard-") as folder:
            for path in _files(repository, prefix):
                name = path.removeprefix(f"{prefix}/") if prefix else path
                copy = Path(repository.download_artifacts(path, folder))
                if name != MLMODEL:
                    digests[name] = sha256_file(copy)
                elif not is_own_description(copy.read_bytes()):
                    raise RefusedMoveError(
                        f"{model.model_id}: its {MLMODEL} names a loader other than safegen's"
                    )
                if copy.is_relative_to(folder):
                    copy.unlink()  # a checkpoint may be larger than the disk for temporary files
        if not digests:
            raise RefusedMoveError(f"{model.model_id} has no files at {model.location}; log it again")
        return digest_json(digests)

    def _open(self, model: LoggedModelFacts) -> tuple[Any, str]:
        """Return the repository of a model's files and their prefix in it, or refuse a place that others may write."""
        from mlflow.server import handlers

        parts = urlsplit(model.location)
        if parts.scheme == _PROXIED and not parts.netloc:
            return handlers._get_artifact_repo_mlflow_artifacts(), parts.path.strip("/")  # noqa: SLF001
        if model.location.startswith(self._roots) and ".." not in model.location:
            return handlers._get_artifact_repository_for_uri(model.location), ""  # noqa: SLF001
        raise RefusedMoveError(
            f"{model.model_id} lies at {model.location}, outside of this server's artifacts; allowed besides: "
            f"{', '.join(self._roots) or 'nothing'} (SAFEGEN_GUARD_ARTIFACT_ROOTS)"
        )


def _files(repository: Any, folder: str) -> Iterator[str]:
    folders, seen = [folder], 0
    while folders:
        for entry in repository.list_artifacts(folders.pop()):
            if entry.is_dir:
                folders.append(entry.path)
                continue
            seen += 1
            if seen > _MOST_FILES:
                raise RefusedMoveError(
                    f"{folder} holds more than {_MOST_FILES} files; expected one checkpoint"
                )
            yield entry.path
