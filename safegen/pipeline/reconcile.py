"""Bring the registry's champion and the channel together again. The channel leads: it is what is served, and signed."""

from __future__ import annotations

from dataclasses import dataclass

from safegen.bootstrap import Platform
from safegen.errors import DataError
from safegen.pipeline.promote import CHAMPION_ALIAS
from safegen.release.pull import resolve
from safegen.release.verify import require_signed


@dataclass(frozen=True)
class Reconciled:
    """What the channel and the alias point to now.

    Attributes:
        version: The release that the channel points to.
        registry_version: The model version that stands for the same checkpoint, and is the champion now.
        before: The model version that was the champion before; None for none.
    """

    version: str
    registry_version: str
    before: str | None

    @property
    def changed(self) -> bool:
        """Whether they disagreed."""
        return self.before != self.registry_version


def run_reconcile(platform: Platform) -> Reconciled:
    """Move the champion alias to the version that stands for the release which the channel points to.

    A promotion that was killed between channel and alias, or overtaken by another one, leaves them apart.

    Raises:
        ObjectNotFoundError: There is no such channel.
        ReleaseRefusedError: The release that the channel points to is not proven; nothing is moved.
        DataError: The registry has no version for its checkpoint.
        RegistryError: The registry cannot be reached or refuses.
    """
    config, registry = platform.config, platform.registry
    manifest = resolve(platform.promoter_store, config.model, config.promote.channel)
    require_signed(platform.promoter_store, manifest, platform.verifier)
    wanted = registry.version_of_checkpoint(config.model, manifest.checkpoint_digest)
    if wanted is None:
        raise DataError(
            f"the registry has no version of {config.model} for {manifest.name}, checkpoint "
            f"{manifest.checkpoint_digest[:12]}; run safegen promote with the configuration that made it"
        )
    before = registry.version_of_alias(config.model, CHAMPION_ALIAS)
    if before != wanted:
        registry.set_alias(config.model, CHAMPION_ALIAS, wanted)
    return Reconciled(manifest.version, wanted, before)
