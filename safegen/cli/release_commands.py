"""Commands for whoever consumes or operates releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safegen.cli.answer import Answer, answering
from safegen.cli.options import MINIATURE_RUN, ConfigOption

commands = typer.Typer()


@commands.command()
@answering
def releases(model: str, config: ConfigOption = MINIATURE_RUN) -> Answer:
    """List the releases of a model and what its channels point to.

    Example: safegen releases miniature
    """
    from safegen.bootstrap import open_platform
    from safegen.config import load_config
    from safegen.release.catalogue import list_releases
    from safegen.release.channel import list_channels

    with open_platform(load_config(config)) as platform:
        found = list_releases(platform.promoter_store, model)
        channels = list_channels(platform.promoter_store, model)
    document = {
        "model": model,
        "releases": [
            {"version": one.version, "digest": one.digest, "created_utc": one.created_utc} for one in found
        ],
        "channels": {one.channel: one.version for one in channels},
    }
    lines = [f"{one.version:>4}  {one.created_utc}  {one.checkpoint_digest[:16]}" for one in found]
    lines += [f"{model}@{one.channel} is version {one.version}" for one in channels]
    return Answer(document, "\n".join(lines) or f"{model} has no release")


@commands.command()
@answering
def pull(name: str, folder: Path, config: ConfigOption = MINIATURE_RUN) -> Answer:
    """Fetch MODEL@CHANNEL, checking every digest before the folder appears.

    Example: safegen pull miniature@production ./model
    """
    from safegen.bootstrap import open_platform
    from safegen.config import load_config
    from safegen.errors import ConfigError
    from safegen.release.pull import pull as fetch

    model, _, channel = name.partition("@")
    if not channel:
        raise ConfigError(f"release {name!r} names no channel or version; expected MODEL@CHANNEL")
    with open_platform(load_config(config)) as platform:
        release = fetch(platform.promoter_store, model, channel, folder)
    document = {"model": release.model, "version": release.version, "folder": str(folder)}
    return Answer(document, f"{release.model} version {release.version} is in {folder}")


@commands.command()
@answering
def rollback(
    model: str,
    to: Annotated[str, typer.Option("--to", help="Version to point at again.")],
    channel: Annotated[str, typer.Option(help="Which channel.")] = "production",
    config: ConfigOption = MINIATURE_RUN,
) -> Answer:
    """Point a channel back at an earlier release.

    Example: safegen rollback miniature --to 1
    """
    import getpass

    from safegen.bootstrap import open_platform
    from safegen.config import load_config
    from safegen.release.channel import rollback as move_back

    with open_platform(load_config(config)) as platform:
        moved = move_back(
            platform.promoter_store, model, channel, to, who=getpass.getuser(), why="safegen rollback"
        )
    return Answer(moved.model_dump(mode="json"), f"{model}@{channel} is version {moved.version}")
