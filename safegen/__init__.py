"""Edit text-to-image models so that they cannot draw a restricted concept, and prove it before release.

>>> import safegen
>>> callable(safegen.apply_delta)
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safegen.diffusion.delta import apply_delta

__all__ = ["__version__", "apply_delta"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for: `import safegen` alone loads no torch."""
    if name == "apply_delta":
        from safegen.diffusion.delta import apply_delta

        return apply_delta
    raise AttributeError(f"module 'safegen' has no attribute {name!r}")
