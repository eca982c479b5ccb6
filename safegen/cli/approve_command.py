"""`safegen approve`: a person's signed word that a decided checkpoint may be released."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from safegen.cli.answer import Answer, answering
from safegen.cli.options import MINIATURE_RUN, ConfigOption

commands = typer.Typer()


@commands.command()
@answering
def approve(
    decision: Path,
    *,
    key: Annotated[Path, typer.Option("--key", help="Your own private key (safegen keys new DIR).")],
    channel: Annotated[str, typer.Option(help="The channel that may move.")] = "production",
    why: Annotated[str, typer.Option(help="The reason, for the audit log.")] = "read and approved",
    run: Annotated[
        str | None, typer.Option("--run", help="Id of the Prefect run that waits for this.")
    ] = None,
    config: ConfigOption = MINIATURE_RUN,
) -> Answer:
    """Sign that the checkpoint of DECISION (a decision.json that passed) may be released to a channel.

    Prints the signed approval, for `safegen promote --approval` or the form of a run that waits; with --run, resumes
    that run with it. It counts if your public key is among the configuration's promote.approvers.

    Example: safegen approve decision.json --key alice/release.key --why "pictures looked at" > approval.json
    """
    from safegen.adapters.approval_signature import sign_approval
    from safegen.adapters.signing_keys import read_private_key
    from safegen.domain.approval import Approval
    from safegen.domain.digests import sha256_file
    from safegen.domain.gate_files import read_decision
    from safegen.errors import DataError

    decided = read_decision(decision)
    if not decided.passed or decided.model is None or decided.checkpoint_sha256 is None:
        raise DataError(
            f"{decision} is {decided.outcome}, expected a pass about a named model; it cannot be approved"
        )
    approval = Approval(
        model=decided.model,
        channel=channel,
        checkpoint_sha256=decided.checkpoint_sha256,
        decision_sha256=sha256_file(decision),
        approver=getpass.getuser(),
        why=why,
        approved_utc=datetime.now(UTC),
    )
    signed = sign_approval(approval, read_private_key(key)).to_json()
    if run is not None:
        from safegen.cli.environment import prepare_run
        from safegen.config import load_config

        prepare_run(load_config(config), debug=False)  # knows where this workspace's Prefect server is
        from flows.resume import resume_with_approval

        resume_with_approval(run, signed)
    return Answer(json.loads(signed), signed)
