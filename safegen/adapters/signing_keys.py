"""EC P-256 keys: made, kept in files, named by a digest of their public half."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from safegen.errors import ConfigError

PRIVATE_NAME, PUBLIC_NAME = "release.key", "release.pub"
_PREHASHED = ec.ECDSA(Prehashed(hashes.SHA256()))


@dataclass(frozen=True)
class KeyPair:
    """Where a pair of keys lies.

    Attributes:
        private: The private key, readable by its owner alone.
        public: The public key, for everybody.
        key_id: See `key_id`.
    """

    private: Path
    public: Path
    key_id: str


@final
class PemKey:
    """A `SigningKey` in this process's memory."""

    def __init__(self, pem: bytes, source: str) -> None:
        """Read a private key.

        Args:
            pem: Unencrypted PEM of an EC P-256 key.
            source: Where it comes from, for messages; the key itself is never shown.

        Raises:
            ConfigError: It is no such key.
        """
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError(
                f"{source} holds no unencrypted PEM private key; expected one made by: safegen keys new DIR"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ConfigError(
                f"{source} holds another kind of key; expected EC P-256, made by: safegen keys new DIR"
            )
        self._key = key

    @property
    def public_key_pem(self) -> bytes:
        """The public half; see `SigningKey.public_key_pem`."""
        return _public_pem(self._key.public_key())

    def sign(self, digest: bytes) -> bytes:
        """Sign a digest; see `SigningKey.sign`."""
        return self._key.sign(digest, _PREHASHED)


def key_id(public_key_pem: bytes) -> str:
    """Return the name of a key: SHA-256 of its public half as PEM, the hint that signatures carry."""
    return hashlib.sha256(public_key_pem).hexdigest()


def load_public_key(pem: bytes, source: str) -> ec.EllipticCurvePublicKey:
    """Read a public key.

    Raises:
        ConfigError: It is no EC P-256 public key.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{source} holds no PEM public key; expected the .pub file of a pair") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError(f"{source} holds another kind of key; expected a public key on EC P-256")
    return key


def read_public_key(path: Path) -> bytes:
    """Return a public key file's content in the one form that `key_id` is made of.

    Raises:
        ConfigError: The file is missing or holds no EC P-256 public key.
    """
    return _public_pem(load_public_key(_read(path, "public"), str(path)))


def read_private_key(path: Path) -> PemKey:
    """Return the private key in a file.

    Raises:
        ConfigError: The file is missing, holds no EC P-256 private key, or others may read it.
    """
    pem = _read(path, "private")
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"private key {path} can be read by others; make it yours alone: chmod 600 {path}")
    return PemKey(pem, str(path))


def create_key_pair(folder: Path) -> KeyPair:
    """Make a pair of keys in a folder, which is made when needed; an existing key is never overwritten.

    Raises:
        ConfigError: There is a key already, or the folder cannot be written.
    """
    private, public = folder / PRIVATE_NAME, folder / PUBLIC_NAME
    for path in (private, public):
        if path.exists():
            raise ConfigError(f"{path} exists already and is never overwritten; give another folder")
    try:
        key = _make_private_key(private)
    except FileExistsError as error:
        raise ConfigError(
            f"{private} exists already and is never overwritten; give another folder"
        ) from error
    keep_public_key(public, key.public_key_pem)
    return KeyPair(private, public, key_id(key.public_key_pem))


def open_key_pair(folder: Path) -> PemKey:
    """Return the private key in a folder, made the first time; its public half lies beside it.

    Raises:
        ConfigError: The key is damaged, can be read by others, or cannot be made.
    """
    private = folder / PRIVATE_NAME
    if not private.exists():
        with suppress(FileExistsError):  # another job was quicker: its key it is
            _make_private_key(private)
    key = read_private_key(private)
    keep_public_key(folder / PUBLIC_NAME, key.public_key_pem)  # a killed job may have left it out
    return key


def keep_public_key(path: Path, pem: bytes) -> Path:
    """Write a public key to a file unless it is there, and return the file.

    Raises:
        ConfigError: Another key is there, or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_new(path, pem, 0o644)
    except FileExistsError:
        if read_public_key(path) != pem:
            raise ConfigError(
                f"{path} holds another public key ({key_id(read_public_key(path))[:12]}) than the signing key's; "
                "move it away if it is an old one"
            ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror or error}; check the folder's rights"
        ) from error
    return path


def _make_private_key(path: Path) -> PemKey:
    """Make a key and write it to a new file, readable by its owner alone.

    Raises:
        FileExistsError: There is a key already.
        ConfigError: It cannot be written.
    """
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_new(path, pem, 0o600)
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigError(
            f"cannot write a key to {path}: {error.strerror or error}; give another folder"
        ) from error
    return PemKey(pem, str(path))


def _public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _read(path: Path, kind: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read {kind} key {path}: {error.strerror or error}; give a file made by: safegen keys new DIR"
        ) from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not exist yet, whole or not at all."""
    pending = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(pending, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(pending, path)  # unlike a rename, refuses to replace
    finally:
        pending.unlink(missing_ok=True)
