"""OpenSSF model signatures: a Sigstore bundle around an in-toto statement of every file's digest, signed by an EC key.

The format is that of `model-signing` 1.1 (https://github.com/sigstore/model-transparency), whose own command verifies
what is signed here: `model_signing verify key DIR --signature DIR/signature.json --public_key K`. Its statement and
manifest classes are used; two things differ. The key is a `SigningKey`, so that it may live in a key service, where
the library wants a file. And verifying takes the current format alone, where the library also accepts two older ones.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, cast, final

from safegen.adapters.signing_keys import key_id, load_public_key
from safegen.adapters.trusted_keys import SHOWN, TrustedKeys, is_signed_by
from safegen.domain.release import SIGNATURE, SignedFiles
from safegen.errors import ReleaseRefusedError, StorageError
from safegen.ports import SigningKey

_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"


@final
class ModelSigner:
    """Signs with any `SigningKey`; see `Signer`."""

    def __init__(self, key: SigningKey) -> None:
        """Keep the key."""
        self._key = key

    def sign(self, subject: str, digests: Mapping[str, str]) -> bytes:
        """Return the content of `signature.json`; see `Signer.sign`."""
        statement = _statement(subject, digests)
        signature = self._key.sign(hashlib.sha256(_authenticated(statement)).digest())
        public = self._key.public_key_pem
        _require_own_signature(public, signature, statement)
        bundle = {
            "mediaType": _BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": key_id(public)}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(statement).decode(),
                "payloadType": _PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        }
        return json.dumps(bundle, indent=1, sort_keys=True).encode() + b"\n"


@final
class ModelVerifier:
    """Trusts the public keys it is given, and no other; see `Verifier`."""

    def __init__(self, public_keys: Sequence[bytes]) -> None:
        """Keep the keys.

        Args:
            public_keys: PEM of each; several while one follows another.

        Raises:
            ConfigError: One is no EC P-256 public key.
        """
        self._keys = TrustedKeys(public_keys)

    def verify(self, signature: bytes) -> SignedFiles:
        """Return what a signature vouches for; see `Verifier.verify`."""
        hint, raw, statement = _open_bundle(signature)
        problem = self._keys.problem(hint, raw, _authenticated(statement))
        if problem:
            raise ReleaseRefusedError(f"{problem}; give the public key of whoever released it")
        return _signed_files(statement, hint)


def _statement(subject: str, digests: Mapping[str, str]) -> bytes:
    from google.protobuf import json_format
    from model_signing import manifest
    from model_signing._hashing.hashing import Digest
    from model_signing._signing.signing import Payload

    how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE]}
    items = [
        manifest.FileManifestItem(path=PurePosixPath(path), digest=Digest("sha256", bytes.fromhex(digest)))
        for path, digest in digests.items()
    ]
    listed = manifest.Manifest(subject, items, manifest.SerializationType.from_args(how))
    return json_format.MessageToJson(Payload(listed).statement.pb).encode()


def _authenticated(statement: bytes) -> bytes:
    """Return what is signed of a statement (DSSE v1, "pre-authentication encoding")."""
    from model_signing._signing.sign_sigstore_pb import pae

    return pae(statement)


def _require_own_signature(public_key_pem: bytes, signature: bytes, statement: bytes) -> None:
    """Refuse what a key service returned unless it fits the key that the service says it used."""
    if not is_signed_by(
        load_public_key(public_key_pem, "the signing key"), signature, _authenticated(statement)
    ):
        raise StorageError(
            f"signing key {key_id(public_key_pem)[:SHOWN]} returned a signature that its own public key does not "
            "accept; expected ECDSA over SHA-256, in DER"
        )


def _open_bundle(data: bytes) -> tuple[str, bytes, bytes]:
    """Return the key's name, the signature and the statement of a bundle, none of them believed yet."""
    try:
        bundle = json.loads(data)
        envelope = bundle["dsseEnvelope"]
        if (bundle["mediaType"], envelope["payloadType"]) != (_BUNDLE_TYPE, _PAYLOAD_TYPE):
            raise ValueError(f"media type {bundle['mediaType']}")  # noqa: TRY301  (one message for all)
        [signed] = envelope["signatures"]
        hint = str(bundle["verificationMaterial"]["publicKey"]["hint"])
        raw, statement = (
            base64.b64decode(text, validate=True) for text in (signed["sig"], envelope["payload"])
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ReleaseRefusedError(
            f"{SIGNATURE} is no model signature ({type(error).__name__}: {error}); do not use the release"
        ) from error
    return hint, raw, statement


def _signed_files(statement: bytes, hint: str) -> SignedFiles:
    """Read a statement that is proven to be the key holder's own."""
    from model_signing._signing.signing import dsse_payload_to_manifest

    try:
        content = cast("dict[str, Any]", json.loads(statement))
        if content["predicateType"] != _PREDICATE_TYPE:
            raise ValueError(f"predicate type {content['predicateType']}")  # noqa: TRY301  (one message for all)
        listed = dsse_payload_to_manifest(content)
        files = {one.identifier: one.digest for one in listed.resource_descriptors()}
        if any(digest.algorithm != "sha256" for digest in files.values()):
            raise ValueError("digests other than SHA-256")  # noqa: TRY301  (one message for all)
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseRefusedError(
            f"key {hint[:SHOWN]} signed something else than a list of files ({error}); do not use the release"
        ) from error
    return SignedFiles(listed.model_name, {path: one.digest_hex for path, one in files.items()}, hint)
