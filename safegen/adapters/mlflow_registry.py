"""Model versions and aliases in MLflow's registry."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, final

from safegen.adapters.candidate_tags import CHECKPOINT_DIGEST, required_digest
from safegen.adapters.mlflow_session import MlflowSession, has_code
from safegen.errors import RegistryError

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

_VERSIONS_TAG = "mlflow.modelVersions"


@final
class MlflowModelRegistry:
    """The `ModelRegistry` port on an MLflow server or an SQLite file.

    It names versions and moves aliases. The bytes that a release serves are in the release store, under their digests.
    """

    def __init__(self, session: MlflowSession) -> None:
        """Use a session."""
        self._session = session

    def register_candidate(
        self, model: str, model_id_or_uri: str, *, tags: Mapping[str, str], description: str
    ) -> str:
        """Make a version, or find the one with the same checkpoint digest; see `ModelRegistry`.

        Raises:
            RegistryError: No digest among the tags, or MLflow cannot be reached or refuses.
        """
        digest = required_digest(model, tags)
        self._make_model(model)
        with self._session.call(f"register a version of {model}"):
            if version := self._of_checkpoint(model, digest):
                self._update(version, tags, description)
                return str(version.version)
            return self._create(model, model_id_or_uri, dict(tags), description)

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Point an alias to a version.

        Raises:
            RegistryError: There is no such version, or MLflow refuses.
        """
        with self._session.call(f"point {model}@{alias} to version {version}"):
            self._session.client.get_model_version(
                model, version
            )  # MLflow itself takes a version that is not there
            self._session.client.set_registered_model_alias(model, alias, version)

    def version_of_checkpoint(self, model: str, digest: str) -> str | None:
        """Return the version that stands for a checkpoint, or None; see `ModelRegistry`.

        Raises:
            RegistryError: MLflow cannot be reached or refuses.
        """
        with self._session.call(f"look for checkpoint {digest[:12]} among the versions of {model}"):
            version = self._of_checkpoint(model, digest)
        return str(version.version) if version else None

    def version_of_alias(self, model: str, alias: str) -> str | None:
        """Return the version that an alias points to, or None.

        Raises:
            RegistryError: MLflow cannot be reached or refuses.
        """
        try:
            with self._session.call(f"read {model}@{alias}"):
                return str(self._session.client.get_model_version_by_alias(model, alias).version)
        except RegistryError as error:
            # MLflow calls a missing alias an invalid parameter, a missing model a missing resource.
            if has_code(error, "INVALID_PARAMETER_VALUE") or has_code(error, "RESOURCE_DOES_NOT_EXIST"):
                return None
            raise

    def tags(self, model: str, version: str) -> dict[str, str]:
        """Return the tags of a version.

        Raises:
            RegistryError: There is no such version, or MLflow refuses.
        """
        with self._session.call(f"read version {version} of {model}"):
            return dict(self._session.client.get_model_version(model, version).tags)

    def _make_model(self, model: str) -> None:
        try:
            with self._session.call(f"make the registered model {model}"):
                self._session.client.create_registered_model(model)
        except RegistryError as error:
            if not has_code(error, "RESOURCE_ALREADY_EXISTS"):
                raise

    def _of_checkpoint(self, model: str, digest: str) -> ModelVersion | None:
        found = (one for one in self._versions(model) if one.tags.get(CHECKPOINT_DIGEST) == digest)
        return next(found, None)

    def _versions(self, model: str) -> Iterator[ModelVersion]:
        page: str | None = None
        while True:
            found = self._session.client.search_model_versions(f"name='{model}'", page_token=page)
            yield from found
            page = found.token
            if not page:
                return

    def _create(self, model: str, model_id_or_uri: str, tags: dict[str, str], description: str) -> str:
        client = self._session.client
        if not model_id_or_uri.startswith("m-"):
            return str(
                client.create_model_version(
                    model, model_id_or_uri, tags=tags, description=description
                ).version
            )
        logged = client.get_logged_model(model_id_or_uri)
        # A database session would resolve models:/ through MLflow's global tracking URI, a server through its own.
        source = f"models:/{logged.model_id}" if self._session.is_server else logged.artifact_location
        made = client.create_model_version(
            model,
            source,
            run_id=logged.source_run_id,
            tags=tags,
            description=description,
            model_id=logged.model_id,
        )
        self._link(logged, model, made.version)
        return str(made.version)

    def _link(self, logged: LoggedModel, model: str, version: str | int) -> None:
        """Write the tag by which MLflow's UI leads from a logged model to its versions, as `register_model` does."""
        known = json.loads(logged.tags.get(_VERSIONS_TAG, "[]"))
        links = json.dumps([*known, {"name": model, "version": version}])
        self._session.client.set_logged_model_tags(logged.model_id, {_VERSIONS_TAG: links})

    def _update(self, version: ModelVersion, tags: Mapping[str, str], description: str) -> None:
        client = self._session.client
        for key, value in tags.items():
            if version.tags.get(key) != value:
                client.set_model_version_tag(version.name, str(version.version), key, value)
        if version.description != description:
            client.update_model_version(version.name, str(version.version), description)
