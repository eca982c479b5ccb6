"""Which key a run signs with, and which it trusts. Secrets come by reference alone: file, variable, key service."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import assert_never, cast

from safegen.adapters.signing import ModelVerifier
from safegen.adapters.signing_keys import (
    PRIVATE_NAME,
    PUBLIC_NAME,
    PemKey,
    keep_public_key,
    key_id,
    open_key_pair,
    read_private_key,
    read_public_key,
)
from safegen.config import EnvironmentKeySection, FileKeySection, KmsKeySection, RunConfig
from safegen.errors import ConfigError
from safegen.ports import SigningKey, Verifier


def open_signing_key(config: RunConfig) -> SigningKey:
    """Return the key that signs this run's releases; one under the workspace is made the first time.

    Raises:
        ConfigError: The key is missing, damaged, or can be read by others, or the hook cannot be imported.
    """
    section = config.promote.signing
    match section:
        case FileKeySection(private_key=None):
            return open_key_pair(workspace_keys(config))
        case FileKeySection(private_key=path):
            return read_private_key(cast("Path", path))  # None is the case above
        case EnvironmentKeySection(variable=variable):
            return _key_from_environment(variable)
        case KmsKeySection():
            return _key_from_service(section)
        case _:
            assert_never(section)


def open_verifier(config: RunConfig, public_keys: Sequence[Path] = ()) -> Verifier:
    """Return what trusts the given public keys, or else those of the configuration.

    Args:
        config: The run; it trusts `promote.trusted_keys` and the public half of the key it signs with.
        public_keys: Trust these and no other.

    Raises:
        ConfigError: A key is missing or damaged, or there is none to trust.
    """
    if public_keys:
        return ModelVerifier([read_public_key(path) for path in public_keys])
    trusted = [read_public_key(path) for path in config.promote.trusted_keys]
    trusted += [own] if (own := _own_public_key(config)) else []
    if not trusted:
        raise ConfigError(
            "there is no public key to trust; give --public-key, or name one in promote.trusted_keys, or promote first"
        )
    return ModelVerifier(trusted)


def workspace_keys(config: RunConfig) -> Path:
    """Return the folder of the keys that are made for a workspace."""
    return config.workspace.absolute() / "keys"


def public_key_file(config: RunConfig, key: SigningKey) -> Path:
    """Return a file with the public half of the signing key, written the first time: what verifiers are to be given.

    Raises:
        ConfigError: It cannot be written.
    """
    pem = key.public_key_pem
    made_here = config.promote.signing == FileKeySection()
    name = PUBLIC_NAME if made_here else f"{key_id(pem)[:12]}.pub"
    return keep_public_key(workspace_keys(config) / name, pem)


def promoter_key_files(config: RunConfig) -> tuple[Path, ...]:
    """Return the public keys that a guarded registry of this workspace trusts: those named, and its own.

    Raises:
        ConfigError: A key is damaged, or the workspace's own cannot be made.
    """
    has_own = config.promote.signing == FileKeySection() or _own_public_key(config) is not None
    own = (public_key_file(config, open_signing_key(config)),) if has_own else ()
    return (*config.promote.trusted_keys, *own)


def _own_public_key(config: RunConfig) -> bytes | None:
    """Return the public half of the signing key where this machine has it; a consumer has not."""
    section = config.promote.signing
    match section:
        case FileKeySection(private_key=None):
            folder = workspace_keys(config)
            return open_key_pair(folder).public_key_pem if (folder / PRIVATE_NAME).is_file() else None
        case FileKeySection(private_key=path):
            there = cast("Path", path)  # None is the case above
            return read_private_key(there).public_key_pem if there.is_file() else None
        case EnvironmentKeySection(variable=variable):
            return _key_from_environment(variable).public_key_pem if os.environ.get(variable) else None
        case KmsKeySection():
            return None  # a consumer has no access to the service: trusted_keys names its public half
        case _:
            assert_never(section)


def _key_from_environment(variable: str) -> PemKey:
    pem = os.environ.get(variable)
    if not pem:
        raise ConfigError(
            f"environment variable {variable} is not set; promote.signing wants the key's PEM there"
        )
    return PemKey(pem.encode(), f"environment variable {variable}")


def _key_from_service(section: KmsKeySection) -> SigningKey:
    module, _, name = section.hook.partition(":")
    try:
        hook = cast("Callable[[str], SigningKey]", getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"promote.signing.hook {section.hook!r} cannot be imported ({error}); expected module:function"
        ) from error
    return hook(section.key)
