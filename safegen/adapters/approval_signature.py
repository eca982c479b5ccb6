"""Signs approvals, and tells whether one covers what is to be released and comes from an approver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from safegen.adapters.text_signature import TextVerifier, sign_text
from safegen.domain.approval import Approval
from safegen.domain.digests import canonical_json
from safegen.domain.documents import parse_document
from safegen.domain.signed_text import SignedText
from safegen.errors import DataError
from safegen.ports import SigningKey


@dataclass(frozen=True)
class ApprovalSubject:
    """What an approval must be about; see `Approval`."""

    model: str
    channel: str
    checkpoint_sha256: str
    decision_sha256: str


def sign_approval(approval: Approval, key: SigningKey) -> SignedText:
    """Sign an approval with the approver's own key."""
    return sign_text(canonical_json(approval.model_dump(mode="json")).decode(), key)


@final
class ApprovalVerifier:
    """Trusts the approvers whose public keys it is given."""

    def __init__(self, public_keys: Sequence[bytes]) -> None:
        """Keep the keys.

        Args:
            public_keys: PEM of each approver.

        Raises:
            ConfigError: One is no EC P-256 public key.
        """
        self._verifier = TextVerifier(public_keys, "approval")

    def verify(self, text: str, subject: ApprovalSubject) -> Approval:
        """Return an approval that an approver has signed for exactly this subject.

        Raises:
            DataError: It is none, its key is not an approver's, its signature does not fit, or it is about something
                else.
        """
        approval = parse_document(Approval, self._verifier.verify(text).payload, what="signed approval")
        for field in ("model", "channel", "checkpoint_sha256", "decision_sha256"):
            found, expected = getattr(approval, field), getattr(subject, field)
            if found != expected:
                raise DataError(
                    f"the approval is about {field} {found}, expected {expected}; approve this decision"
                )
        return approval
