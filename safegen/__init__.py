"""Edit text-to-image models so that they cannot draw a restricted concept, and prove it before release.

>>> import safegen
>>> [callable(getattr(safegen, name)) for name in ("load", "edit", "evaluate", "gate", "verify", "apply_delta")]
[True, True, True, True, True, True]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safegen.api import edit, evaluate, gate, verify
    from safegen.diffusion.delta import apply_delta
    from safegen.loading import load

__all__ = ["__version__", "apply_delta", "edit", "evaluate", "gate", "load", "verify"]
__version__ = "0.1.0"

_HOMES = {
    "apply_delta": "safegen.diffusion.delta",
    "edit": "safegen.api",
    "evaluate": "safegen.api",
    "gate": "safegen.api",
    "load": "safegen.loading",
    "verify": "safegen.api",
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for: `import safegen` alone loads no torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'safegen' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, so that a notebook completes them."""
    return __all__
