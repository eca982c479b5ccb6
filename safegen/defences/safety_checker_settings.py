"""Settings of the safety checker, apart from it: a configuration is read without loading torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class SafetyCheckerSettings(BaseModel):
    """Settings of the checker.

    Attributes:
        kind: Names this defence in a run configuration.
        threshold: Score of a restricted label from which a picture is withheld, where the run's detector checks; None
            takes the detector's own.
        clip_checker: Folder that holds `safety_checker/` and `feature_extractor/` in diffusers layout, as SD 1.x
            checkpoints do; that checker then takes the detector's place.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["safety-checker"] = "safety-checker"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    clip_checker: Path | None = None
