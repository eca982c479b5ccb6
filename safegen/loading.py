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


def load(
    release: str,
    *,
    config: Path | str = "configs/miniature.toml",
    public_keys: Sequence[Path | str] = (),
) -> StableDiffusionPipeline:
    """Load a released model as a diffusers pipeline, once its signature and every byte of it are proven.

    It is kept under the configuration's workspace by its digest: the next call fetches nothing, and proves it again.

    Args:
        release: MODEL@CHANNEL, such as "sd14@production", or MODEL@VERSION.
        config: Run configuration, which says where the store is and which keys are trusted.
        public_keys: Trust these .pub files and no other.

    Returns:
        The pipeline, float32, on the CPU.

    Raises:
        safegen.errors.ReleaseRefusedError: The release, or the folder kept of it, is unsigned, altered, or not one
            that passed.
        safegen.errors.StorageError: The store cannot be reached, or has no such release.
        safegen.errors.ConfigError: The configuration, the release's name or a key is missing or wrong.
    """
    run = load_config(Path(config))
    return load_pipeline(fetch_release(release, run, [Path(key) for key in public_keys]))


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
