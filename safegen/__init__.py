"""Edit text-to-image models so that they cannot draw a restricted concept, and prove it before release.

>>> import safegen
>>> callable(safegen.apply_delta)
True
>>> callable(safegen.load)
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safegen.diffusion.delta import apply_delta
    from safegen.loading import load

__all__ = ["__version__", "apply_delta", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for: `import safegen` alone loads no torch."""
    if name == "apply_delta":
        from safegen.diffusion.delta import apply_delta

        return apply_delta
    if name == "load":
        from safegen.loading import load

        return load
    raise AttributeError(f"module 'safegen' has no attribute {name!r}")
