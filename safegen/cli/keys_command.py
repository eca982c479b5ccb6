"""`safegen keys`: make the keys that sign releases, and the secrets of services."""

from __future__ import annotations

from pathlib import Path

import typer

from safegen.cli.answer import Answer, answering

commands = typer.Typer(help="The keys that sign releases, and the secrets of services.", no_args_is_help=True)


@commands.command("new")
@answering
def new_keys(folder: Path) -> Answer:
    """Make an EC P-256 key pair, DIR/release.key and DIR/release.pub; nothing is overwritten.

    Example: safegen keys new keys
    """
    from safegen.adapters.signing_keys import create_key_pair

    pair = create_key_pair(folder)
    document = {"private_key": str(pair.private), "public_key": str(pair.public), "key_id": pair.key_id}
    text = (
        f"private key: {pair.private} (keep it to yourself, and a copy of it in a safe)\n"
        f"public key:  {pair.public} (give it to whoever verifies)\nkey id:      {pair.key_id[:12]}"
    )
    return Answer(document, text)


@commands.command("services")
@answering
def service_secrets(folder: Path) -> Answer:
    """Make every secret that infra/compose and infra/kubernetes name, DIR/*; one that is there is kept.

    Example: safegen keys services infra/compose/secrets
    """
    from safegen.stack.service_secrets import make_service_secrets

    made = make_service_secrets(folder)
    return Answer({"files": [str(path) for path in made]}, "\n".join(map(str, made)))
