"""What proves that a model version may be promoted: a signed pass for the very files that the version stands for.

Nothing is believed because it is written in the registry. The chain is: version -> its source `models:/m-…` -> the
finished logged model of that id, on this server -> the digest of its files, read from the artifact store -> a decision
that passed, for that digest and that model, signed by a trusted key. A tag may carry the decision, for it cannot be
forged; any other tag counts for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, final

from safegen.adapters.candidate_tags import SIGNED_DECISION
from safegen.adapters.decision_signature import DecisionVerifier
from safegen.domain.decision import Decision
from safegen.errors import DataError, RegistryError

MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
_SOURCE = re.compile(rf"models:/({MODEL_ID.pattern})")
_SHOWN = 12


class RefusedMoveError(RegistryError):
    """A change of the registry that nothing proves to be right."""


@dataclass(frozen=True)
class VersionFacts:
    """What the registry says of a version.

    Attributes:
        model: Name of the registered model.
        version: Its number.
        source: What it was made from.
        location: Where its files are read from.
        tags: Its tags.
    """

    model: str
    version: str
    source: str
    location: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class LoggedModelFacts:
    """What the server says of a logged model.

    Attributes:
        model_id: Its id.
        is_ready: Whether it is finished; from then on the server lets nobody write its files.
        location: Where its files are.
    """

    model_id: str
    is_ready: bool
    location: str


class LoggedModels(Protocol):
    """The logged models that a server knows, and their files."""

    def read(self, model_id: str) -> LoggedModelFacts:
        """Return what the server says of a logged model.

        Raises:
            RefusedMoveError: It knows none of this id.
        """
        ...

    def digest(self, model: LoggedModelFacts) -> str:
        """Return the checkpoint digest of a logged model's files, as they are in the artifact store.

        Raises:
            RefusedMoveError: They cannot be read, or are not such as safegen logs.
        """
        ...


@final
class PromotionProof:
    """Tells whether a version is proven."""

    def __init__(self, verifier: DecisionVerifier | str, models: LoggedModels) -> None:
        """Keep what is trusted.

        Args:
            verifier: Holds the trusted keys; a text says why there are none, and then everything is refused.
            models: The server's logged models.
        """
        self._verifier = verifier
        self._models = models

    def require(self, version: VersionFacts, signed_decision: str | None = None) -> None:
        """Return if a version is proven.

        Args:
            version: The version.
            signed_decision: Take this for the version's decision instead of the one in its tags.

        Raises:
            RefusedMoveError: It is not; says which link of the chain is missing.
        """
        try:
            decision = self._decision(version, signed_decision)
        except DataError as error:
            raise RefusedMoveError(str(error)) from error
        if not decision.passed:
            raise RefusedMoveError(f"its decision is blocked: {decision.reasons[0]}")
        if decision.model is None or decision.model.casefold() != version.model.casefold():
            raise RefusedMoveError(f"its decision is about model {decision.model!r}")
        found = self._models.digest(self.require_source(version))
        if found != decision.checkpoint_sha256:
            raise RefusedMoveError(
                f"its decision is about checkpoint {str(decision.checkpoint_sha256)[:_SHOWN]}, but its "
                f"files are checkpoint {found[:_SHOWN]}; evaluate and decide on these files"
            )

    def require_source(self, version: VersionFacts) -> LoggedModelFacts:
        """Return the logged model that a version stands for.

        Raises:
            RefusedMoveError: There is none that is finished, or the version is read from elsewhere.
        """
        model = self.source_model(version.source)
        if model.location != version.location:
            raise RefusedMoveError(
                f"it is read from {version.location}, its logged model lies at {model.location}"
            )
        return model

    def source_model(self, source: str) -> LoggedModelFacts:
        """Return the logged model that a source names.

        Raises:
            RefusedMoveError: It is no `models:/m-…`, or the server has no such finished model.
        """
        match = _SOURCE.fullmatch(source)
        if match is None:
            raise RefusedMoveError(
                f"source {source[:200]!r} is not allowed; expected models:/m-… of a logged model of this server"
            )
        model = self._models.read(match[1])
        if not model.is_ready:
            raise RefusedMoveError(f"logged model {model.model_id} is not finished; finalize it first")
        return model

    def _decision(self, version: VersionFacts, signed_decision: str | None) -> Decision:
        if isinstance(self._verifier, str):
            raise RefusedMoveError(f"no decision can be verified: {self._verifier}")
        text = signed_decision or version.tags.get(SIGNED_DECISION)
        if not text:
            raise RefusedMoveError(
                f"it has no signed decision (tag {SIGNED_DECISION!r}); promote it with: safegen retrain"
            )
        return self._verifier.verify(text)
