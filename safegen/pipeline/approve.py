"""Whether a person must approve before a channel moves, and whether one has.

Approval is asked of a key, not of a server: whoever can resume a run, click a button or write to the workspace gains
nothing by it. It covers one decision about one checkpoint for one channel.
"""

from __future__ import annotations

from safegen.adapters.approval_signature import ApprovalSubject, ApprovalVerifier
from safegen.adapters.signing_keys import read_public_key
from safegen.bootstrap import Platform
from safegen.domain.approval import Approval
from safegen.domain.digests import sha256_file
from safegen.errors import ReleaseRefusedError
from safegen.pipeline.outcomes import Decided, Edited
from safegen.release.catalogue import read_manifest
from safegen.release.channel import read_channel


def approval_subject(platform: Platform, edited: Edited, decided: Decided) -> ApprovalSubject:
    """Return what an approval of this candidate must be about."""
    return ApprovalSubject(
        model=platform.config.model,
        channel=platform.config.promote.channel,
        checkpoint_sha256=edited.checkpoint_digest,
        decision_sha256=sha256_file(decided.decision),
    )


def is_approval_due(platform: Platform, edited: Edited, decided: Decided) -> bool:
    """Say whether a person must approve: where approvers are named, and the channel does not serve this already."""
    if not platform.config.promote.approvers:
        return False
    subject = approval_subject(platform, edited, decided)
    channel = read_channel(platform.promoter_store, subject.model, subject.channel)
    if channel is None:
        return True
    served = read_manifest(platform.promoter_store, subject.model, channel.version)
    return (served.checkpoint_digest, served.decision_digest) != (
        subject.checkpoint_sha256,
        subject.decision_sha256,
    )


def verify_approval(platform: Platform, edited: Edited, decided: Decided, signed: str | None) -> Approval:
    """Return the approval in a signed document.

    Args:
        platform: Names the approvers.
        edited: The candidate.
        decided: The decision that is to be approved.
        signed: What `safegen approve` printed; None where nobody has approved.

    Raises:
        ReleaseRefusedError: There is none.
        DataError: It is not an approver's, or not about this.
    """
    if signed is None:
        raise ReleaseRefusedError(
            f"{platform.config.model} passed the gate and waits for an approver; read {decided.decision}, then: "
            f"safegen approve {decided.decision} --key KEY"
        )
    keys = [read_public_key(path) for path in platform.config.promote.approvers]
    return ApprovalVerifier(keys).verify(signed, approval_subject(platform, edited, decided))
