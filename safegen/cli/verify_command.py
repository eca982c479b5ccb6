"""`safegen verify`: prove a pulled folder, or a release where it is stored, by a public key alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safegen.cli.answer import Answer, answering

if TYPE_CHECKING:
    from safegen.ports import Verifier
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
    from safegen.adapters.signing import ModelVerifier
    from safegen.adapters.signing_keys import read_public_key
    from safegen.release.verify import verify_folder

    verifier = ModelVerifier([read_public_key(path) for path in public_key])
    if "://" in release:
        return _answer(_verify_uri(release, config, verifier))
    return _answer(verify_folder(Path(release), verifier))


def _verify_uri(uri: str, config: Path, verifier: Verifier) -> Verification:
    from safegen.bootstrap import open_reader_at
    from safegen.config import load_config
    from safegen.release.layout import parse_release_uri
    from safegen.release.verify import verify_stored

    address = parse_release_uri(uri)
    with open_reader_at(load_config(config), address.store_uri) as store:
        return verify_stored(store, address.model, address.version, verifier)


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
