"""The tags of a model version that others than people read."""

from __future__ import annotations

from collections.abc import Mapping

from safegen.errors import RegistryError

CHECKPOINT_DIGEST = "checkpoint_digest"
"""Tells that two versions are the same checkpoint."""
SIGNED_DECISION = "signed_decision"
"""Proves to a guarded MLflow server that the version passed; see `safegen.adapters.decision_signature`."""


def required_digest(model: str, tags: Mapping[str, str]) -> str:
    """Return the checkpoint digest among a candidate's tags.

    Raises:
        RegistryError: There is none, so that registering twice would make two versions.
    """
    digest = tags.get(CHECKPOINT_DIGEST, "")
    if not digest:
        raise RegistryError(
            f"cannot register a version of {model} without the tag {CHECKPOINT_DIGEST!r}: give the checkpoint's digest"
        )
    return digest
