"""MLflow's model registry in a database, with promotion guarded.

REST, AJAX, GraphQL and whatever later versions add end in this store; so refusing here leaves no way round but the
database itself. It subclasses MLflow's store rather than wrapping it, because that store's methods call each other.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from safegen.adapters.candidate_tags import SIGNED_DECISION
from safegen.adapters.promotion_proof import PromotionProof, RefusedMoveError, VersionFacts

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_PROMPT_TAG = "mlflow.prompt.is_prompt"


@dataclass(frozen=True)
class GuardedNames:
    """What only a proven version may be called.

    Attributes:
        aliases: Aliases, in lower case; some databases compare without regard to case.
        stages: Stages, in lower case.
    """

    aliases: frozenset[str]
    stages: frozenset[str]


@final
class GuardedRegistryStore(SqlAlchemyStore):
    """Refuses, with 403 and the reason, what `docs/registry.md` lists."""

    def __init__(
        self, database_uri: str, read_database_uri: str | None, *, names: GuardedNames, proof: PromotionProof
    ) -> None:
        """Open the database."""
        self._names, self._proof = names, proof
        super().__init__(database_uri, read_database_uri)

    def set_registered_model_alias(self, name: str, alias: str, version: Any) -> None:
        """Point an alias to a version; a guarded one only to a proven version."""
        with _refusing(f"point {name}@{alias} to version {version}"):
            if self._is_guarded_alias(alias):
                self._proof.require(self._facts(name, version))
        super().set_registered_model_alias(name, alias, version)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Delete an alias, unless it is guarded."""
        with _refusing(f"delete the alias {name}@{alias}"):
            if self._is_guarded_alias(alias):
                raise RefusedMoveError("it is guarded; point it to another version that passed")
        super().delete_registered_model_alias(name, alias)

    def transition_model_version_stage(
        self, name: str, version: Any, stage: str, archive_existing_versions: Any
    ) -> ModelVersion:
        """Move a version to a stage: to a guarded one when it is proven, and from a guarded one not at all."""
        with _refusing(f"move {name} version {version} to stage {stage}"):
            if self._is_guarded_stage(stage):
                self._proof.require(self._facts(name, version))
            elif self._is_guarded_stage(self.get_model_version(name, version).current_stage):
                raise RefusedMoveError(
                    "it serves a guarded stage; move another version that passed there first"
                )
        return super().transition_model_version_stage(name, version, stage, archive_existing_versions)

    def create_model_version(  # noqa: PLR0917  (MLflow's own)
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Any = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Make a version, of a finished logged model of this server alone; prompts have no files to guard."""
        with _refusing(f"make a version of {name}"):
            if not any(tag.key == _PROMPT_TAG for tag in tags or []):
                self._proof.source_model(source)
        return super().create_model_version(
            name, source, run_id, tags, run_link, description, local_model_path, model_id
        )

    def delete_model_version(self, name: str, version: Any) -> None:
        """Delete a version that no guarded name points to."""
        with _refusing(f"delete version {version} of {name}"):
            self._require_unguarded(self.get_model_version(name, version))
        super().delete_model_version(name, version)

    def delete_registered_model(self, name: str) -> None:
        """Delete a registered model without guarded names."""
        with _refusing(f"delete the registered model {name}"):
            self._require_all_unguarded(name)
        super().delete_registered_model(name)

    def rename_registered_model(self, name: str, new_name: str) -> Any:
        """Rename a registered model without guarded names: decisions are about a model by its name."""
        with _refusing(f"rename the registered model {name}"):
            self._require_all_unguarded(name)
        return super().rename_registered_model(name, new_name)

    def set_model_version_tag(self, name: str, version: Any, tag: Any) -> None:
        """Set a tag; the decision of a version that is promoted may only be replaced by one that proves it, too."""
        with _refusing(f"replace the decision of {name} version {version}"):
            if tag.key == SIGNED_DECISION and self._is_guarded(self.get_model_version(name, version)):
                self._proof.require(self._facts(name, version), signed_decision=tag.value or "{}")
        super().set_model_version_tag(name, version, tag)

    def delete_model_version_tag(self, name: str, version: Any, key: str) -> None:
        """Delete a tag, the decision of a promoted version apart."""
        with _refusing(f"delete the decision of {name} version {version}"):
            if key == SIGNED_DECISION:
                self._require_unguarded(self.get_model_version(name, version))
        super().delete_model_version_tag(name, version, key)

    def guarded_users(self, model_id: str) -> list[str]:
        """Return the promoted versions that are made of a logged model, as `name@version`."""
        found = self.search_model_versions(f"source_path = 'models:/{model_id}'", max_results=1000)
        versions = [self.get_model_version(one.name, one.version) for one in found]
        return [f"{one.name}@{one.version}" for one in versions if self._is_guarded(one)]

    def _facts(self, name: str, version: Any) -> VersionFacts:
        found = self.get_model_version(name, version)
        location = self.get_model_version_download_uri(name, version)
        return VersionFacts(name, str(found.version), found.source, location, dict(found.tags))

    def _require_all_unguarded(self, name: str) -> None:
        model = self.get_registered_model(name)
        for version in {*model.aliases.values(), *(one.version for one in model.latest_versions)}:
            self._require_unguarded(self.get_model_version(name, version))

    def _require_unguarded(self, version: ModelVersion) -> None:
        if self._is_guarded(version):
            names = [*version.aliases, version.current_stage or ""]
            guarded = [one for one in names if self._is_guarded_alias(one) or self._is_guarded_stage(one)]
            raise RefusedMoveError(
                f"version {version.version} is {', '.join(guarded)}; point that to another version that passed first"
            )

    def _is_guarded(self, version: ModelVersion) -> bool:
        return self._is_guarded_stage(version.current_stage) or any(
            self._is_guarded_alias(alias) for alias in version.aliases
        )

    def _is_guarded_alias(self, alias: str) -> bool:
        return alias.strip().casefold() in self._names.aliases

    def _is_guarded_stage(self, stage: str | None) -> bool:
        return (stage or "").strip().casefold() in self._names.stages


@contextmanager
def _refusing(what: str) -> Generator[None]:
    try:
        yield
    except RefusedMoveError as error:
        raise MlflowException(f"safegen refuses to {what}: {error}", error_code=PERMISSION_DENIED) from error
