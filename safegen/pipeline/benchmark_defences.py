"""Opens the defences of a benchmark by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safegen.bootstrap import Platform
from safegen.data.manifest import read_triplets
from safegen.defences.defence import Defence
from safegen.defences.opening import open_stack
from safegen.defences.retrained_settings import RetrainedSettings
from safegen.defences.settings import DefenceSettings
from safegen.pipeline.defences import defence_parts, defence_settings
from safegen.pipeline.edit import encode_triplets, finished_edit
from safegen.pipeline.ingest import run_ingest
from safegen.pipeline.outcomes import Triplets
from safegen.pipeline.triplets import run_triplets
from safegen.pipeline.validate import run_validate

if TYPE_CHECKING:
    from safegen.defences.triplet_latents import TripletLatents


def open_defence(platform: Platform, name: str) -> Defence:
    """Return a defence, or a stack such as "safegen+sld-medium".

    Args:
        platform: Of the run whose configuration says what names mean, see `defence_settings`. Where "safegen" means
            the run's own edit, a candidate that its edit stage has made in this workspace is taken as it is.
        name: Such as "esd-u".

    Raises:
        ConfigError: There is no such defence.
        DataError: A file that it needs is missing or damaged.
    """
    parts = defence_parts(platform, lambda: _triplet_latents(platform, _triplets(platform)))
    return open_stack([_settings(platform, part) for part in name.split("+")], parts)


def _settings(platform: Platform, name: str) -> DefenceSettings:
    settings = defence_settings(platform.config, name)
    if settings != platform.config.edit or settings.kind != "safegen":
        return settings
    made = finished_edit(platform, _triplets(platform))
    return settings if made is None else RetrainedSettings(source=str(made))


def _triplets(platform: Platform) -> Triplets:
    """Make the triplets of the run, or find what an earlier run made of the same pictures."""
    return run_triplets(platform, run_validate(platform, run_ingest(platform)))


def _triplet_latents(platform: Platform, triplets: Triplets) -> TripletLatents:
    records = read_triplets(platform.trainer_store, triplets.dataset, triplets.digest)
    return encode_triplets(platform, platform.load(platform.base_checkpoint), records)
