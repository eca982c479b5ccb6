"""The settings of every defence as one type, and the published ones by name; a configuration is read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from safegen.defences.adv_unlearn_settings import AdvUnlearnSettings
from safegen.defences.esd_settings import EsdSettings
from safegen.defences.retrained_settings import RetrainedSettings
from safegen.defences.safegen_settings import SafeGenSettings
from safegen.defences.safety_checker_settings import SafetyCheckerSettings
from safegen.defences.sld_settings import SldSettings
from safegen.defences.text_filter_settings import TextFilterSettings
from safegen.defences.uce_settings import UceSettings


class UneditedSettings(BaseModel):
    """No defence.

    Attributes:
        kind: Names this defence in a run configuration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["unedited"] = "unedited"


def _edit_kind(edit: object) -> object:
    """Take SafeGen where no kind is given."""
    kind = edit.get("kind") if isinstance(edit, Mapping) else getattr(edit, "kind", None)
    return kind or "safegen"


WeightEditSettings = Annotated[
    Annotated[SafeGenSettings, Tag("safegen")]
    | Annotated[EsdSettings, Tag("esd")]
    | Annotated[UceSettings, Tag("uce")]
    | Annotated[AdvUnlearnSettings, Tag("adv-unlearn")],
    Discriminator(_edit_kind),
]
"""A defence that changes weights, by `kind`; without one, SafeGen."""

DefenceSettings = Annotated[
    UneditedSettings
    | RetrainedSettings
    | TextFilterSettings
    | SafetyCheckerSettings
    | SldSettings
    | SafeGenSettings
    | EsdSettings
    | UceSettings
    | AdvUnlearnSettings,
    Field(discriminator="kind"),
]
"""Any defence, by `kind`."""

PUBLISHED: Final[Mapping[str, DefenceSettings]] = {
    "unedited": UneditedSettings(),
    "retrained": RetrainedSettings(),
    "text-filter": TextFilterSettings(),
    "safety-checker": SafetyCheckerSettings(),
    "sld-weak": SldSettings(level="weak"),
    "sld-medium": SldSettings(level="medium"),
    "sld-strong": SldSettings(level="strong"),
    "sld-max": SldSettings(level="max"),
    "safegen": SafeGenSettings(),
    "esd-x": EsdSettings(variant="x"),
    "esd-u": EsdSettings(variant="u"),
    "uce": UceSettings(),
    "adv-unlearn": AdvUnlearnSettings(),
}
"""What a name means where a run's configuration does not say otherwise (its table `defences`)."""

ALIASES: Final[Mapping[str, str]] = {"esd": "esd-x"}
"""Other names: ESD without a variant is the one that its paper uses for what a prompt names."""
