"""A key management service in memory, for tests and for trying `[promote.signing] kind = "kms"` out.

It shows what a real one must do: see `SigningKey` in `safegen/ports.py`, and docs/releases.md for AWS KMS.
"""

from __future__ import annotations

from functools import cache
from typing import final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from safegen.errors import StorageError
from safegen.ports import SigningKey

_DIGEST_BYTES = 32


@final
class MemoryKmsKey:
    """One key of the service; its private half cannot be had."""

    def __init__(self) -> None:
        """Make a key."""
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public_key_pem(self) -> bytes:
        """The public half; see `SigningKey.public_key_pem`."""
        return self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, digest: bytes) -> bytes:
        """Sign a digest, as services do: never a whole message; see `SigningKey.sign`."""
        if len(digest) != _DIGEST_BYTES:
            raise StorageError(
                f"the key service refused {len(digest)} bytes; expected a SHA-256 digest of {_DIGEST_BYTES}"
            )
        return self._key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256())))


@cache
def open_key(key_id: str) -> SigningKey:
    """Return the key of a name, the same one each time in a process; it is forgotten when the process ends."""
    del key_id  # the cache's key
    return MemoryKmsKey()
