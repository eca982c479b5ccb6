"""Signs decisions, and tells whether a signed one comes from a key that is trusted.

Keys are the EC P-256 pairs of releases (`signing_keys`). What is signed is the decision's canonical JSON itself, so
`openssl dgst -sha256 -verify KEY.pub -signature SIGNATURE PAYLOAD` checks it as well.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import final

from safegen.adapters.signing_keys import key_id
from safegen.adapters.trusted_keys import TrustedKeys
from safegen.domain.decision import Decision
from safegen.domain.signed_decision import SignedDecision, decision_payload, read_signed_decision
from safegen.errors import DataError
from safegen.ports import SigningKey


def sign_decision(decision: Decision, key: SigningKey) -> SignedDecision:
    """Sign a decision as it is, passed or blocked."""
    payload = decision_payload(decision)
    signature = key.sign(hashlib.sha256(payload.encode()).digest())
    return SignedDecision(
        payload=payload, key_id=key_id(key.public_key_pem), signature=base64.b64encode(signature).decode()
    )


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
        self._keys = TrustedKeys(public_keys)

    def verify(self, text: str) -> Decision:
        """Return the decision in a signed document.

        Raises:
            DataError: It is no such document, its key is not trusted, or its signature does not fit it.
        """
        signed = read_signed_decision(text)
        problem = self._keys.problem(signed.key_id, signed.signature_bytes(), signed.payload.encode())
        if problem:
            raise DataError(f"refused the decision: {problem}")
        return signed.decision()
