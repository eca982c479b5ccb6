"""A text with the signature of whoever vouches for it (schema version 1): a decision, or a person's approval."""

from __future__ import annotations

import base64
import binascii
from typing import Literal

from pydantic import Field

from safegen.domain.documents import parse_document
from safegen.domain.report import Record, Sha256
from safegen.errors import DataError


class SignedText(Record):
    """A text in which every byte that was signed stays as it was.

    Attributes:
        schema_version: 1.
        payload: Canonical JSON (RFC 8785) of a document; its UTF-8 bytes are what is signed.
        key_id: SHA-256 of the public key's PEM.
        signature: ECDSA over SHA-256 of the payload, DER, in base64.
    """

    schema_version: Literal[1] = 1
    payload: str
    key_id: Sha256
    signature: str = Field(min_length=1)

    def signature_bytes(self, what: str) -> bytes:
        """Return the signature.

        Args:
            what: What is signed, for the message ("decision").

        Raises:
            DataError: It is not base64.
        """
        try:
            return base64.b64decode(self.signature, validate=True)
        except (binascii.Error, ValueError) as error:
            raise DataError(f"the {what}'s signature is not base64; sign the {what} again") from error

    def to_json(self) -> str:
        """Return the document as one line of JSON."""
        return self.model_dump_json()


def read_signed_text(text: str, what: str) -> SignedText:
    """Parse a signed text; the signature is not verified here.

    Raises:
        DataError: It is no such document.
    """
    return parse_document(SignedText, text, what=f"signed {what}")
