"""What a run's configuration says of defences, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, assert_never

from safegen.bootstrap import Platform, open_clip, retrained_unet
from safegen.config import RunConfig
from safegen.defences.opening import DefenceParts, where_it_acts
from safegen.defences.settings import ALIASES, PUBLISHED, DefenceSettings, WeightEditSettings
from safegen.errors import ConfigError

if TYPE_CHECKING:
    from safegen.defences.triplet_latents import TripletLatents


def defence_parts(platform: Platform, triplets: Callable[[], TripletLatents]) -> DefenceParts:
    """Return what defences of a run are made of.

    Args:
        platform: Of the run.
        triplets: Makes the data of SafeGen's edit.
    """
    config = platform.config
    return DefenceParts(
        concept=config.concept,
        seed=config.seed,
        triplets=triplets,
        detector=lambda: platform.detector,
        unsafe_labels=platform.unsafe_labels,
        unsafe_threshold=config.detector.threshold,
        clip=lambda: open_clip(config.evaluate.clip).text_embeddings,
        retrained_unet=retrained_unet(),
        work_dir=platform.workspace / "defences",
    )


def defence_settings(config: RunConfig, name: str) -> DefenceSettings:
    """Return what a name means in a run: its table `defences`, else its own edit, else the published settings.

    Args:
        config: The run.
        name: Such as "esd-u" or "sld-medium"; the kind of the run's edit means that edit.

    Raises:
        ConfigError: There is no such defence.
    """
    meant = ALIASES.get(name, name)
    own = config.edit if config.edit.kind == name else None
    settings = config.defences.get(meant) or own or PUBLISHED.get(meant)
    if settings is None:
        known = ", ".join(sorted({*config.defences, *PUBLISHED, *ALIASES}))
        raise ConfigError(f"there is no defence {name!r}; expected one of {known}")
    return settings


def stack_settings(config: RunConfig, names: Sequence[str]) -> tuple[DefenceSettings, ...]:
    """Return the settings of a stack, such as ["safegen", "sld-medium"], for `open_stack`.

    Raises:
        ConfigError: There is no such defence.
    """
    return tuple(defence_settings(config, name) for name in names)


def with_defence(config: RunConfig, name: str) -> RunConfig:
    """Return the run with another weight edit.

    Args:
        config: The run.
        name: Of a defence that changes weights, as in `defence_settings`.

    Raises:
        ConfigError: There is no such defence, or it changes no weights; says where it acts.
    """
    settings = defence_settings(config, name)
    match settings.kind:
        case "safegen" | "esd" | "uce" | "adv-unlearn":
            return config.model_copy(update={"edit": settings})
        case "unedited" | "retrained" | "text-filter" | "safety-checker" | "sld":
            raise ConfigError(
                f"defence {name!r} is no weight edit: it acts on {where_it_acts(settings)}, so there is no checkpoint "
                "to make; use safegen, esd, esd-u, uce or adv-unlearn, or stack it in a benchmark"
            )
        case _:
            assert_never(settings.kind)


def edit_inputs(config: RunConfig) -> dict[str, object]:
    """Return all of a configuration that decides what an edit makes, besides base, triplets and seed, as plain JSON."""
    settings = config.edit.model_dump(mode="json")
    if config.edit.kind == "safegen" or config.concept is None:
        return {"settings": settings}
    return {"settings": settings, "concept": config.concept.model_dump(mode="json")}


def edit_title(settings: WeightEditSettings) -> str:
    """Return what a person reads of an edit in a list of runs.

    >>> edit_title(PUBLISHED["safegen"]), edit_title(PUBLISHED["esd-u"])
    ('paper_code, empty text', 'esd-u')
    """
    match settings.kind:
        case "safegen":
            return f"{settings.target}, {settings.text} text"
        case "esd":
            return f"esd-{settings.variant}"
        case "uce" | "adv-unlearn":
            return settings.kind
        case _:
            assert_never(settings.kind)


def edit_steps(settings: WeightEditSettings) -> int:
    """Return how many steps an edit has; 1 where it is computed at once."""
    return 1 if settings.kind == "uce" else settings.steps
