"""A person's word that one decided checkpoint may be released to one channel (schema version 1)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, StringConstraints

from safegen.domain.release import Name
from safegen.domain.report import Record, Sha256

Words = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class Approval(Record):
    """What is approved, by whom.

    Attributes:
        schema_version: 1.
        model: Name of the model.
        channel: The channel that may move.
        checkpoint_sha256: Digest of the checkpoint's files.
        decision_sha256: SHA-256 of the decision.json that the approver read.
        approver: Who approves, in words; the key that signs this says it for certain.
        why: The reason.
        approved_utc: When.
    """

    schema_version: Literal[1] = 1
    model: Name
    channel: Name
    checkpoint_sha256: Sha256
    decision_sha256: Sha256
    approver: Words
    why: Words
    approved_utc: AwareDatetime
