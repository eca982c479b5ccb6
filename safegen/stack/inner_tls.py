"""Keys that keep other users of this machine out of the object store's inner ports.

The S3 identities guard only the S3 port. The server's inner gRPC and HTTP ports know no identities, so they
are closed with mutual TLS and signed tokens whose keys only the server's own user can read.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from safegen.stack.identities import write_private

_COMPONENTS = ("master", "volume", "filer", "s3", "admin", "worker", "client")
_VALID_FOR = timedelta(days=3650)


def write_security(folder: Path) -> Path:
    """Write `security.toml` and the certificates it names into `folder`, unless they are there.

    Args:
        folder: The server's working directory, where it looks for the file.

    Returns:
        The configuration file.

    Raises:
        StorageError: The folder cannot be written.
    """
    config = folder / "security.toml"
    if config.exists():
        return config
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("safegen local stack", authority_key, authority_key, None)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate("weed", key, authority_key, authority)
    write_private(folder / "ca.pem", authority.public_bytes(serialization.Encoding.PEM))
    write_private(folder / "weed.pem", certificate.public_bytes(serialization.Encoding.PEM))
    write_private(folder / "weed.key", _pem(key))
    write_private(config, _toml(folder).encode())
    return config


def write_server_certificate(folder: Path, hosts: Sequence[str]) -> None:
    """Write `s3.pem` and `s3.key` for a server, and `ca.pem` that clients trust, unless they are there.

    Args:
        folder: Where to.
        hosts: Names and IP addresses that it holds for.

    Raises:
        StorageError: The folder cannot be written.
    """
    if (folder / "s3.pem").exists():
        return
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _certificate("safegen services", authority_key, authority_key, None)
    certificate = _certificate("safegen object store", key, authority_key, authority, hosts)
    write_private(folder / "ca.pem", authority.public_bytes(serialization.Encoding.PEM))
    write_private(folder / "s3.key", _pem(key))
    write_private(folder / "s3.pem", certificate.public_bytes(serialization.Encoding.PEM))


def _toml(folder: Path) -> str:
    tokens = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
    parts = [f'[{section}]\nkey = "{secrets.token_urlsafe(32)}"' for section in tokens]
    parts.append(f"[grpc]\nca = '{folder / 'ca.pem'}'")
    ends = f"cert = '{folder / 'weed.pem'}'\nkey = '{folder / 'weed.key'}'"
    parts += [f"[grpc.{name}]\n{ends}" for name in _COMPONENTS]
    return "\n\n".join(parts) + "\n"


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    signing_key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    hosts: Sequence[str] = ("localhost",),
) -> x509.Certificate:
    """Make a certificate: an authority when nobody else issues it, else one for both ends of a connection."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID_FOR)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(usage, critical=False).add_extension(
            x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
        )
    return builder.sign(signing_key, hashes.SHA256())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
