"""A released model as a pipeline, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.bootstrap import open_reader
from safegen.config import RunConfig, load_config
from safegen.diffusion.checkpoint import load_pipeline
from safegen.errors import ConfigError
from safegen.release.pull import pull_manifest, resolve
from safegen.release_keys import open_verifier

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def load_release(
    name: str, config: RunConfig | Path, public_keys: Sequence[Path] = ()
) -> StableDiffusionPipeline:
    """Fetch a release unless it is here, prove every byte of it, and load it; see `safegen.load`."""
    run = config if isinstance(config, RunConfig) else load_config(config)
    return load_pipeline(fetch_release(name, run, public_keys))


def fetch_release(name: str, config: RunConfig, public_keys: Sequence[Path] = ()) -> Path:
    """Return the folder of a release under the workspace, fetched unless it is there, and proven either way.

    Raises:
        ConfigError: The name is not MODEL@CHANNEL or MODEL@VERSION, or there is no key to trust.
        ReleaseRefusedError: The release, or the folder kept of it, cannot be proven.
        StorageError: The store cannot be reached, or has no such release.
    """
    model, channel = split_name(name)
    verifier = open_verifier(config, public_keys)
    with open_reader(config) as store:
        manifest = resolve(store, model, channel)
        folder = config.workspace.absolute() / "pulled" / manifest.digest
        pull_manifest(store, manifest, folder, verifier=verifier)
    return folder


def split_name(name: str) -> tuple[str, str]:
    """Return model and channel (or version) of a release's name.

    Raises:
        ConfigError: It names no channel or version.

    >>> split_name("sd14@production")
    ('sd14', 'production')
    """
    model, _, channel = name.partition("@")
    if not channel:
        raise ConfigError(f"release {name!r} names no channel or version; expected MODEL@CHANNEL")
    return model, channel
