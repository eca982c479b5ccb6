"""Signs decisions as model versions carry them, and reads back those of a trusted key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from safegen.adapters.text_signature import TextVerifier, sign_text
from safegen.domain.decision import Decision
from safegen.domain.digests import canonical_json
from safegen.domain.documents import parse_document
from safegen.domain.signed_text import SignedText
from safegen.ports import SigningKey


def sign_decision(decision: Decision, key: SigningKey) -> SignedText:
    """Sign a decision as it is, passed or blocked."""
    return sign_text(canonical_json(decision.model_dump(mode="json")).decode(), key)


@final
class DecisionVerifier:
    """Trusts the public keys it is given, and no other."""

    def __init__(self, public_keys: Sequence[bytes]) -> None:
        """Keep the keys.

        Args:
            public_keys: PEM of each; several while one follows another.

        Raises:
            ConfigError: One is no EC P-256 public key.
        """
        self._verifier = TextVerifier(public_keys, "decision")

    def verify(self, text: str) -> Decision:
        """Return the decision in a signed document.

        Raises:
            DataError: It is no such document, its key is not trusted, or its signature does not fit it.
        """
        return parse_document(Decision, self._verifier.verify(text).payload, what="signed decision")
