"""The public keys that somebody trusts, and whether one of them made a signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from safegen.adapters.signing_keys import key_id, load_public_key

SHOWN = 12
"""How many digits of a key's name a message shows."""


@final
class TrustedKeys:
    """Trusts the public keys it is given, and no other."""

    def __init__(self, public_keys: Sequence[bytes]) -> None:
        """Keep the keys.

        Args:
            public_keys: PEM of each; several while one follows another.

        Raises:
            ConfigError: One is no EC P-256 public key.
        """
        self._keys = {key_id(pem): load_public_key(pem, "a trusted key") for pem in public_keys}

    def problem(self, name: str, signature: bytes, signed: bytes) -> str | None:
        """Say why a signature proves nothing; None where a trusted key made it.

        Args:
            name: Which key is said to have signed; see `key_id`.
            signature: ECDSA over SHA-256, in DER.
            signed: The bytes signed.
        """
        key = self._keys.get(name)
        if key is None:
            trusted = ", ".join(known[:SHOWN] for known in self._keys) or "none"
            return f"it is signed by key {name[:SHOWN]!r}, which is not trusted (trusted: {trusted})"
        if not is_signed_by(key, signature, signed):
            return f"the signature does not fit under key {name[:SHOWN]}: it or what it covers was changed"
        return None


def is_signed_by(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    """Return whether a signature (ECDSA over SHA-256, in DER) of these bytes fits a key."""
    try:
        key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True
