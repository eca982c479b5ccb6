"""Settings of UCE, apart from the edit: a configuration is read without loading torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Weight = Annotated[float, Field(ge=0)]


class UceSettings(BaseModel):
    """Settings of the edit; the defaults are those of the authors' code.

    Attributes:
        kind: Names this defence in a run configuration.
        erase_scale: Weight of a prompt of the concept.
        retain_scale: Weight of a prompt that must stay.
        ridge: lambda, weight of staying where the weights are.
        tokens: Whose states are mapped: the "last" token of the phrase, as in the authors' code, or it and "all" that
            follow, in whose states the phrase is heard as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["uce"] = "uce"
    erase_scale: Annotated[float, Field(gt=0)] = 1.0
    retain_scale: Weight = 1.0
    ridge: Annotated[float, Field(gt=0)] = 0.5
    tokens: Literal["last", "all"] = "last"
