"""Edit text-to-image models so that they cannot draw a restricted concept, and prove it before release."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from safegen.diffusion.delta import apply_delta

__version__ = "0.1.0"
__all__ = ["__version__", "apply_delta", "load"]


def __getattr__(name: str) -> object:
    """Load `apply_delta` when it is first asked for: `import safegen` alone loads no torch."""
    if name == "apply_delta":
        from safegen.diffusion.delta import apply_delta

        return apply_delta
    raise AttributeError(f"module 'safegen' has no attribute {name!r}")


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
