"""A decision with the signature of whoever may promote, as model versions carry it (schema version 1)."""

from __future__ import annotations

import base64
import binascii
from typing import Literal

from pydantic import Field

from safegen.domain.decision import Decision
from safegen.domain.digests import canonical_json
from safegen.domain.documents import parse_document
from safegen.domain.report import Record, Sha256
from safegen.errors import DataError


class SignedDecision(Record):
    """A decision as text, so that every byte that was signed stays as it was.

    Attributes:
        schema_version: 1.
        payload: Canonical JSON (RFC 8785) of a `Decision`; its UTF-8 bytes are what is signed.
        key_id: SHA-256 of the public key's PEM.
        signature: ECDSA over SHA-256 of the payload, DER, in base64.
    """

    schema_version: Literal[1] = 1
    payload: str
    key_id: Sha256
    signature: str = Field(min_length=1)

    def signature_bytes(self) -> bytes:
        """Return the signature.

        Raises:
            DataError: It is not base64.
        """
        try:
            return base64.b64decode(self.signature, validate=True)
        except (binascii.Error, ValueError) as error:
            raise DataError("the decision's signature is not base64; sign the decision again") from error

    def decision(self) -> Decision:
        """Return the decision, which is to be believed only once the signature is verified.

        Raises:
            DataError: The payload is no decision.
        """
        return parse_document(Decision, self.payload, what="signed decision")

    def to_json(self) -> str:
        """Return the document as one line of JSON."""
        return self.model_dump_json()


def decision_payload(decision: Decision) -> str:
    """Return the text of a decision that is signed: its canonical JSON."""
    return canonical_json(decision.model_dump(mode="json")).decode()


def read_signed_decision(text: str) -> SignedDecision:
    """Parse a signed decision; the signature is not verified here.

    Raises:
        DataError: It is no such document.
    """
    return parse_document(SignedDecision, text, what="signed decision")
