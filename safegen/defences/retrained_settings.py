"""Settings of the retrained model, apart from it: a configuration is read without loading torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class RetrainedSettings(BaseModel):
    """Which model was trained without the concept.

    Attributes:
        kind: Names this defence in a run configuration.
        source: "miniature" for the second U-Net that ships with safegen, or a checkpoint folder in diffusers layout.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["retrained"] = "retrained"
    source: str = "miniature"
