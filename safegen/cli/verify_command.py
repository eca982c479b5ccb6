"""`safegen verify`: prove a pulled folder, or a release where it is stored, by a public key alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safegen.cli.answer import Answer, answering

if TYPE_CHECKING:
    from safegen.release.verify import Verification


commands = typer.Typer()


@commands.command()
@answering
def verify(
    release: Annotated[str, typer.Argument(help="A pulled folder, or s3://BUCKET/releases/MODEL/VERSION.")],
    *,
    public_key: Annotated[
        list[Path], typer.Option("--public-key", help="Public key to trust; repeat for several.")
    ],
    config: Annotated[
        Path, typer.Option("--config", help="Says where the store of a URI is; not read for a folder.")
    ] = Path("configs/miniature.toml"),
) -> Answer:
    """Check signature, digests and decision: exit 0 valid, 1 not.

    Example: safegen verify ./model --public-key release.pub
    """
    from safegen import api

    return _answer(api.verify(release, public_keys=public_key, config=config))


def _answer(found: Verification) -> Answer:
    document = {
        "valid": found.valid,
        "release": found.release,
        "checks": [
            {"name": check.name, "passed": check.passed, "reason": check.reason} for check in found.checks
        ],
    }
    lines = [f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.reason}" for check in found.checks]
    lines.append(
        f"{'valid' if found.valid else 'NOT VALID'}: {found.release or 'not a release that can be trusted'}"
    )
    return Answer(document, "\n".join(lines), 0 if found.valid else 1)
