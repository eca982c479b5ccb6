"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MINIATURE_RUN = Path("configs/miniature.toml")
ConfigOption = Annotated[Path, typer.Option("--config", help="Run configuration, a TOML file.")]
