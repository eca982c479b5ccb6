"""What a release is: its manifest, the channels that point at it, and the record of what happened to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from safegen.domain.digests import canonical_json, digest_json, sha256_bytes
from safegen.domain.object_key import check_key
from safegen.errors import DataError, StorageError

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")]
UtcTime = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]

MANIFEST, DECISION, SIGNATURE = "manifest.json", "decision.json", "signature.json"
SBOM, MODEL_CARD = "sbom.cdx.json", "MODEL_CARD.md"
RELEASE_DOCUMENTS = frozenset({MANIFEST, DECISION, SIGNATURE, SBOM, MODEL_CARD})
"""Names, at the top of a pulled folder, that belong to the release; no checkpoint may hold a file of that name."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


class _Record(BaseModel):
    """A value that is stored as canonical JSON and read back strictly."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def to_bytes(self) -> bytes:
        """Return the one byte form of this value (RFC 8785), so that its SHA-256 stands for it."""
        return canonical_json(self.model_dump(mode="json"))


class ReleaseChunk(_Record):
    """A run of bytes of a released file, stored as the blob with this digest."""

    digest: Sha256
    size_bytes: int = Field(gt=0)


class ReleaseFile(_Record):
    """One file of a release: its chunks, one after the other, are its content.

    Attributes:
        path: Relative POSIX path inside the checkpoint folder.
        sha256: Digest of the whole file.
        size_bytes: Length of the whole file.
        chunks: The file's content in order; an empty file has none.
    """

    path: str
    sha256: Sha256
    size_bytes: int = Field(ge=0)
    chunks: tuple[ReleaseChunk, ...]

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        try:
            check_key(self.path)
        except StorageError as error:
            raise ValueError(str(error)) from error
        total = sum(chunk.size_bytes for chunk in self.chunks)
        if total != self.size_bytes:
            raise ValueError(f"file {self.path!r}: its chunks hold {total} bytes, expected {self.size_bytes}")
        return self


class ReleaseManifest(_Record):
    """Everything a release consists of; the object that, once written, makes it exist.

    Attributes:
        schema_version: Version of this format.
        model: Name of the released model.
        version: A positive integer as text, counted per model.
        checkpoint_digest: `tree_digest` of the checkpoint folder.
        decision_digest: SHA-256 of the bytes of the `decision.json` beside the manifest.
        created_utc: When it was made.
        created_by: Who made it.
        files: Every file of the checkpoint, sorted by path.
        documents: The bill of materials and the model card, which lie beside the checkpoint's files when pulled.
        audit_heads: SHA-256 of the audit entries that no other entry followed when this release was made, so that
            its signature covers the audit log up to there.
        metadata: Free text facts for people: base model, dataset versions, run ids.
    """

    schema_version: Literal[1] = 1
    model: Name
    version: Version
    checkpoint_digest: Sha256
    decision_digest: Sha256
    created_utc: UtcTime
    created_by: str
    files: tuple[ReleaseFile, ...] = Field(min_length=1)
    documents: tuple[ReleaseFile, ...]
    audit_heads: tuple[Sha256, ...] = ()
    metadata: dict[str, str] = Field(default_factory=dict[str, str])

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        paths = [file.path for file in self.files]
        if len(set(paths)) != len(paths):
            raise ValueError("a path occurs twice")
        if taken := RELEASE_DOCUMENTS.intersection(paths):
            raise ValueError(f"file {min(taken)!r} has the name of a document of the release")
        if tuple(document.path for document in self.documents) != (MODEL_CARD, SBOM):
            raise ValueError(f"its documents are not exactly {MODEL_CARD} and {SBOM}")
        found = digest_json({file.path: file.sha256 for file in self.files})
        if found != self.checkpoint_digest:
            raise ValueError(f"the files' digests give checkpoint {found}, expected {self.checkpoint_digest}")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest as stored, which stands for the release as a whole."""
        return sha256_bytes(self.to_bytes())

    @property
    def name(self) -> str:
        """Model and version as people write them: `miniature@3`."""
        return f"{self.model}@{self.version}"

    @property
    def signed_digests(self) -> dict[str, str]:
        """SHA-256 by path of all that a pulled folder holds, the signature apart: what the signature covers."""
        stored = {file.path: file.sha256 for file in (*self.files, *self.documents)}
        return stored | {DECISION: self.decision_digest, MANIFEST: self.digest}


class Channel(_Record):
    """Which release of a model is served under a name such as `production`.

    Attributes:
        schema_version: Version of this format.
        model: Name of the model.
        channel: Name of the channel.
        version: The release it points at.
        digest: SHA-256 of that release's manifest.
        previous: The version it pointed at before, None for a new channel.
        utc: When it was moved.
        who: Who moved it.
        why: The reason given.
    """

    schema_version: Literal[1] = 1
    model: Name
    channel: Name
    version: Version
    digest: Sha256
    previous: Version | None
    utc: UtcTime
    who: str
    why: str


class AuditEntry(_Record):
    """One thing that happened to a model's releases; entries are only ever added.

    Attributes:
        schema_version: Version of this format.
        model: Name of the model.
        action: "publish" (a release came to be), "promote" (a channel moved to it) or "rollback" (a channel
            moved to an older version than the one it had).
        version: The release concerned.
        digest: SHA-256 of that release's manifest.
        channel: The channel moved, None for a publication.
        previous: The version the channel had before.
        utc: When it happened.
        who: Who did it.
        why: The reason given.
        parents: SHA-256 of the entries before it that no other entry had followed; two writers at the same moment
            make a fork, which the next entry closes.
    """

    schema_version: Literal[1] = 1
    model: Name
    action: Literal["publish", "promote", "rollback"]
    version: Version
    digest: Sha256
    channel: Name | None = None
    previous: Version | None = None
    utc: UtcTime
    who: str
    why: str
    parents: tuple[Sha256, ...] = ()

    @property
    def key(self) -> str:
        """The object key of this entry: in order of time, and the same for the same deed whatever came before."""
        deed = self.model_copy(update={"parents": ()})
        return f"audit/{self.model}/{audit_time(self.utc)}-{sha256_bytes(deed.to_bytes())[:16]}.json"


def audit_time(utc: str) -> str:
    """Return a record's time as the keys of audit entries begin with it.

    >>> audit_time("2026-01-02T03:04:05.000000Z")
    '20260102T030405.000000Z'
    """
    return utc.replace(":", "").replace("-", "")


@dataclass(frozen=True)
class SignedFiles:
    """What a valid signature vouches for.

    Attributes:
        subject: Whose files: `miniature@3`.
        digests: SHA-256 of every file by its path.
        key_id: Which key signed; see `safegen.adapters.signing_keys.key_id`.
    """

    subject: str
    digests: Mapping[str, str]
    key_id: str


def check_name(name: str, what: str) -> str:
    """Return a model's or channel's name when it may be part of an object key.

    Raises:
        DataError: It is not a letter followed by at most 63 letters, digits, dots, dashes or underscores.

    >>> check_name("sd-1.4", "model")
    'sd-1.4'
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            f"refused {what} name {name!r}: expected a letter and then at most 63 letters, digits, '.', '-' or '_'"
        )
    return name


def utc_text(moment: datetime) -> str:
    """Return an aware time as the text that records hold.

    >>> utc_text(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02T03:04:05.000000Z'
    """
    if moment.tzinfo is None:
        raise DataError(f"refused time {moment.isoformat()}: it has no time zone; give an aware datetime")
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
