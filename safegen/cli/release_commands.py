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
    """List the releases of a model, what its channels point to, and who did what; 1 for an audit log tampered with.

    Example: safegen releases miniature
    """
    from safegen.bootstrap import open_reader
    from safegen.config import load_config
    from safegen.release.audit import audit_problems, read_audit
    from safegen.release.catalogue import list_releases
    from safegen.release.channel import list_channels

    with open_reader(load_config(config)) as store:
        found, channels = list_releases(store, model), list_channels(store, model)
        problems = audit_problems(store, model, found, channels)
        entries = () if problems else read_audit(store, model)
    document = {
        "model": model,
        "releases": [
            {"version": one.version, "digest": one.digest, "created_utc": one.created_utc} for one in found
        ],
        "channels": {one.channel: one.version for one in channels},
        "audit": [entry.model_dump(mode="json") for entry in entries],
        "audit_problems": list(problems),
    }
    lines = [f"{one.version:>4}  {one.created_utc}  {one.checkpoint_digest[:16]}" for one in found]
    lines += [f"{model}@{one.channel} is version {one.version}" for one in channels]
    lines += [
        f"{one.utc}  {one.who}: {one.action} version {one.version}"
        + (f" on {one.channel} (before: {one.previous or 'nothing'})" if one.channel else "")
        + f", {one.why}"
        for one in entries
    ]
    lines += [f"audit log tampered with: {problem}" for problem in problems]
    return Answer(document, "\n".join(lines) or f"{model} has no release", 1 if problems else 0)


@commands.command()
@answering
def pull(
    name: str,
    folder: Path,
    config: ConfigOption = MINIATURE_RUN,
    *,
    public_key: Annotated[
        list[Path] | None, typer.Option("--public-key", help="Public key to trust, instead of the config's.")
    ] = None,
) -> Answer:
    """Fetch MODEL@CHANNEL, proving signature, decision and every digest before the folder appears.

    Example: safegen pull miniature@production ./model
    """
    from safegen.bootstrap import open_reader
    from safegen.config import load_config
    from safegen.loading import split_name
    from safegen.release.pull import pull as fetch
    from safegen.release_keys import open_verifier

    run = load_config(config)
    model, channel = split_name(name)
    verifier = open_verifier(run, public_key or ())
    with open_reader(run) as store:
        release = fetch(store, model, channel, folder, verifier=verifier)
    document = {
        "model": release.model,
        "version": release.version,
        "digest": release.digest,
        "folder": str(folder),
    }
    return Answer(document, f"{release.model} version {release.version} is in {folder}")


@commands.command()
@answering
def rollback(
    model: str,
    to: Annotated[str, typer.Option("--to", help="Version to point at again.")],
    channel: Annotated[str, typer.Option(help="Which channel.")] = "production",
    why: Annotated[str, typer.Option(help="The reason, for the audit log.")] = "safegen rollback",
    config: ConfigOption = MINIATURE_RUN,
) -> Answer:
    """Point a channel back at an earlier release, once every byte of that is proven.

    Example: safegen rollback miniature --to 1 --why "complaints about hands"
    """
    import getpass

    from safegen.bootstrap import open_platform
    from safegen.config import load_config
    from safegen.release.channel import rollback as move_back
    from safegen.release_keys import open_verifier

    run = load_config(config)
    verifier = open_verifier(run)
    with open_platform(run) as platform:
        moved = move_back(
            platform.promoter_store, model, channel, to, verifier=verifier, who=getpass.getuser(), why=why
        )
    return Answer(moved.model_dump(mode="json"), f"{model}@{channel} is version {moved.version}")
