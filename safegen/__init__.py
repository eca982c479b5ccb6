"""Edit text-to-image models so that they cannot draw a restricted concept, and prove it before release."""

from __future__ import annotations

__version__ = "0.1.0"
