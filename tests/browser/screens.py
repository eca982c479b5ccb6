"""Pictures for README and documentation, taken by the tests that look at the same pages: `make screenshots`."""

from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

LARGEST_BYTES = 150_000
_COLOURS = 128


def keep_screen(page: Page, name: str) -> None:
    """Write what is visible as a PNG of few colours, where SAFEGEN_SCREENSHOTS names a folder; else do nothing."""
    folder = os.environ.get("SAFEGEN_SCREENSHOTS")
    if not folder:
        return
    seen = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path = Path(folder) / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    seen.quantize(_COLOURS).save(path, optimize=True)
    assert path.stat().st_size < LARGEST_BYTES, f"{path} is too large for the repository"
