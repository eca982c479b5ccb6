"""Signs texts, and tells whether a signed one comes from a key that is trusted.

Keys are the EC P-256 pairs of releases (`signing_keys`). What is signed is the text itself, so
`openssl dgst -sha256 -verify KEY.pub -signature SIGNATURE PAYLOAD` checks it as well.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import final

from safegen.adapters.signing_keys import key_id
from safegen.adapters.trusted_keys import TrustedKeys
from safegen.domain.signed_text import SignedText, read_signed_text
from safegen.errors import DataError
from safegen.ports import SigningKey


def sign_text(payload: str, key: SigningKey) -> SignedText:
    """Sign a text as it is."""
    signature = key.sign(hashlib.sha256(payload.encode()).digest())
    return SignedText(
        payload=payload, key_id=key_id(key.public_key_pem), signature=base64.b64encode(signature).decode()
    )


@final
class TextVerifier:
    """Trusts the public keys it is given, and no other."""

    def __init__(self, public_keys: Sequence[bytes], what: str) -> None:
        """Keep the keys.

        Args:
            public_keys: PEM of each; several while one follows another.
            what: What is signed, for messages ("decision").

        Raises:
            ConfigError: One is no EC P-256 public key.
        """
        self._keys = TrustedKeys(public_keys)
        self._what = what

    def verify(self, text: str) -> SignedText:
        """Return a signed text whose payload can be believed.

        Raises:
            DataError: It is no such document, its key is not trusted, or its signature does not fit it.
        """
        signed = read_signed_text(text, self._what)
        signature = signed.signature_bytes(self._what)
        problem = self._keys.problem(signed.key_id, signature, signed.payload.encode())
        if problem:
            raise DataError(f"refused the {self._what}: {problem}")
        return signed
