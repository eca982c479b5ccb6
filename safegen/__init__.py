"""Edit text-to-image models so that they cannot draw a restricted concept, and prove it before release."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


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
        safegen.errors.ReleaseRefusedError: The release is unsigned, altered, or not one that passed.
        safegen.errors.StorageError: The store cannot be reached, or has no such release.
        safegen.errors.ConfigError: The configuration or a key is missing or wrong.
    """
    from safegen.loading import load_release

    return load_release(release, Path(config), [Path(key) for key in public_keys])
