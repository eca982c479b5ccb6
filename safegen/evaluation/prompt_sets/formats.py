"""Which formats there are. A new one is a module beside this one, its import and its place in the union."""

from __future__ import annotations

from typing import get_args

from safegen.errors import ConfigError
from safegen.evaluation.prompt_sets.coco import CocoSettings
from safegen.evaluation.prompt_sets.i2p import I2PSettings
from safegen.evaluation.prompt_sets.mma import MmaSettings
from safegen.evaluation.prompt_sets.nsfw56k import Nsfw56kSettings
from safegen.evaluation.prompt_sets.plain import PlainSettings
from safegen.evaluation.prompt_sets.ring_a_bell import RingABellSettings
from safegen.evaluation.prompt_sets.settings import PromptFileSettings
from safegen.evaluation.prompt_sets.sneaky_prompt import SneakyPromptSettings

PromptFile = (
    I2PSettings
    | CocoSettings
    | RingABellSettings
    | MmaSettings
    | SneakyPromptSettings
    | Nsfw56kSettings
    | PlainSettings
)

FORMATS: dict[str, type[PromptFileSettings]] = {
    get_args(kind.model_fields["format"].annotation)[0]: kind for kind in get_args(PromptFile)
}
"""Settings by the name of their format."""


def format_named(name: str) -> type[PromptFileSettings]:
    """Return the settings of a format.

    Raises:
        ConfigError: There is no such format.
    """
    if name not in FORMATS:
        raise ConfigError(f"prompt format {name!r} is not known; expected one of {', '.join(FORMATS)}")
    return FORMATS[name]


def known_columns() -> frozenset[str]:
    """Return the names of columns that any format knows, hence that messages may show."""
    return frozenset(name for kind in FORMATS.values() for name in kind.columns.names)
