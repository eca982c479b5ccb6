"""Make a checkpoint that passed the gate a release: all of it, or none of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from safegen.blobs import get_blob, put_blob
from safegen.domain.checkpoint_files import PICKLE_SUFFIXES
from safegen.domain.digests import digest_json, sha256_bytes, tree_digests
from safegen.domain.release import (
    DECISION,
    MANIFEST,
    MODEL_CARD,
    RELEASE_DOCUMENTS,
    SBOM,
    SIGNATURE,
    AuditEntry,
    ReleaseChunk,
    ReleaseFile,
    ReleaseManifest,
    check_name,
    utc_text,
)
from safegen.errors import (
    DamagedObjectError,
    DataError,
    ObjectNotFoundError,
    PreconditionFailedError,
    ReleaseRefusedError,
    StorageError,
)
from safegen.ports import ObjectStore, Signer, Verifier
from safegen.release.audit import audit_heads, record
from safegen.release.catalogue import Release, list_releases, next_version, passed_decision, release_of
from safegen.release.chunking import chunk_sizes
from safegen.release.layout import release_key
from safegen.release.verify import require_signed

_logger = logging.getLogger(__name__)

_PARALLEL_CHUNKS = 4
_VERSION_ATTEMPTS = 50


@dataclass(frozen=True)
class Provenance:
    """Who makes a release and what people should know about it.

    Attributes:
        who: The person or job, as the audit record names it.
        why: The reason, as the audit record gives it.
        metadata: Free text facts for the manifest: base model, dataset versions, run ids.
    """

    who: str
    why: str
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Papers:
    """What a release carries for its readers.

    Attributes:
        sbom: CycloneDX bill of materials, JSON.
        model_card: Markdown.
    """

    sbom: bytes
    model_card: bytes


def publish(
    store: ObjectStore,
    model: str,
    checkpoint: Path,
    decision: bytes,
    *,
    papers: Papers,
    signer: Signer,
    verifier: Verifier,
    provenance: Provenance,
) -> Release:
    """Publish a checkpoint folder, signed, under the next free version.

    Blobs go first, then `decision.json`, then `signature.json`, and last `manifest.json` in one conditional write:
    until then there is no release, and then it is signed. Of several publishers racing for a version one gets it and
    the others take the next. A publication that was cut short after it was signed is completed as it was signed. The
    same checkpoint with the same decision is published once; asking again returns the release that is there, unless
    none of the keys trusted now has signed it.

    Args:
        store: Where releases live.
        model: Name of the released model.
        checkpoint: The checkpoint folder, safetensors only.
        decision: The gate's decision, as it wrote it: `outcome` must be "pass" and `checkpoint_sha256` this
            folder's.
        papers: Its bill of materials and its model card.
        signer: Who signs.
        verifier: Which keys are trusted, the signer's among them.
        provenance: Who publishes, why, and what to note in the manifest.

    Returns:
        The release, new or existing.

    Raises:
        DataError: The decision is not a pass for this checkpoint, or the folder holds pickled weights or a file with
            the name of a release's document.
        StorageError: The store or the key failed; nothing is released, and publishing again carries on where this
            stopped.
    """
    check_name(model, "model")
    digests = tree_digests(checkpoint)
    checkpoint_digest = digest_json(digests)
    passed_decision(decision, checkpoint_digest)
    _refuse_unfit(checkpoint, digests)
    manifest = _existing(store, model, checkpoint_digest, sha256_bytes(decision), verifier)
    if manifest is None:
        draft = ReleaseManifest(
            model=model,
            version="1",
            checkpoint_digest=checkpoint_digest,
            decision_digest=sha256_bytes(decision),
            created_utc=utc_text(datetime.now(UTC)),
            created_by=provenance.who,
            files=tuple(_send_file(store, checkpoint, path, digest) for path, digest in digests.items()),
            documents=(
                _send_text(store, MODEL_CARD, papers.model_card),
                _send_text(store, SBOM, papers.sbom),
            ),
            audit_heads=audit_heads(store, model),
            metadata=dict(provenance.metadata),
        )
        manifest = _commit(store, draft, decision, signer, verifier)
    _record_publication(store, manifest, provenance)
    return release_of(store, manifest)


def _commit(
    store: ObjectStore, draft: ReleaseManifest, decision: bytes, signer: Signer, verifier: Verifier
) -> ReleaseManifest:
    """Take the first version that nobody else holds; the release is final once this returns."""
    first = next_version(store, draft.model)
    for version in range(first, first + _VERSION_ATTEMPTS):
        manifest = draft.model_copy(update={"version": str(version)})
        try:
            _put_once(store, release_key(manifest.model, manifest.version, DECISION), decision)
            manifest = _sign(store, manifest, signer, verifier)
            store.put(
                release_key(manifest.model, manifest.version, MANIFEST), manifest.to_bytes(), if_absent=True
            )
        except PreconditionFailedError:
            winner = _existing(store, draft.model, draft.checkpoint_digest, draft.decision_digest, verifier)
            if winner is not None:
                return winner
            continue
        _logger.info("published %s, manifest %s", manifest.name, manifest.digest)
        return manifest
    raise StorageError(
        f"cannot publish {draft.model}: versions {first} to {first + _VERSION_ATTEMPTS - 1} were all taken by others; "
        "publish again"
    )


def _sign(
    store: ObjectStore, manifest: ReleaseManifest, signer: Signer, verifier: Verifier
) -> ReleaseManifest:
    """Write the signature and return the manifest that it covers.

    That is another one where a publication of the same checkpoint and decision was cut short after it had signed: its
    manifest is kept as a blob, so that it can be completed.

    Raises:
        PreconditionFailedError: Somebody else's signature is there.
    """
    key = release_key(manifest.model, manifest.version, SIGNATURE)
    put_blob(store, manifest.to_bytes())
    if store.head(key) is None:  # the key service is asked only where its answer has a place
        with suppress(PreconditionFailedError):  # somebody was quicker
            store.put(key, signer.sign(manifest.name, manifest.signed_digests), if_absent=True)
            return manifest
    earlier = _signed_earlier(store, key, verifier)
    wanted = (manifest.name, manifest.checkpoint_digest, manifest.decision_digest)
    if earlier is None or (earlier.name, earlier.checkpoint_digest, earlier.decision_digest) != wanted:
        raise PreconditionFailedError(
            f"{store.uri}/{key} is a signature of something else; take another version"
        )
    return earlier


def _signed_earlier(store: ObjectStore, key: str, verifier: Verifier) -> ReleaseManifest | None:
    """Return the manifest that a stored signature covers, None where there is none or it is not to be trusted."""
    try:
        signed = verifier.verify(store.get(key))
        if MANIFEST not in signed.digests:
            return None
        manifest = ReleaseManifest.model_validate_json(get_blob(store, signed.digests[MANIFEST]))
    except (ReleaseRefusedError, ObjectNotFoundError, DamagedObjectError, ValidationError):
        return None
    return manifest if manifest.signed_digests == dict(signed.digests) else None


def _put_once(store: ObjectStore, key: str, data: bytes) -> None:
    """Write an object unless these very bytes are there, left by a publication that was cut short."""
    try:
        store.put(key, data, if_absent=True)
    except PreconditionFailedError:
        if store.get(key) != data:
            raise


def _existing(
    store: ObjectStore, model: str, checkpoint_digest: str, decision_digest: str, verifier: Verifier
) -> ReleaseManifest | None:
    for manifest in list_releases(store, model):
        if (manifest.checkpoint_digest, manifest.decision_digest) != (checkpoint_digest, decision_digest):
            continue
        try:
            require_signed(store, manifest, verifier)
        except ReleaseRefusedError as error:
            _logger.warning("%s; the same checkpoint is published anew", error)
            continue
        return manifest
    return None


def _send_file(store: ObjectStore, checkpoint: Path, path: str, digest: str) -> ReleaseFile:
    source = checkpoint / path
    sizes = chunk_sizes(source)
    starts = [sum(sizes[:index]) for index in range(len(sizes))]

    def send(start: int, size: int) -> ReleaseChunk:
        with source.open("rb") as file:
            file.seek(start)
            return ReleaseChunk(digest=put_blob(store, file.read(size)), size_bytes=size)

    with ThreadPoolExecutor(_PARALLEL_CHUNKS) as pool:
        chunks = tuple(pool.map(send, starts, sizes))
    return ReleaseFile(path=path, sha256=digest, size_bytes=sum(sizes), chunks=chunks)


def _send_text(store: ObjectStore, path: str, data: bytes) -> ReleaseFile:
    chunk = ReleaseChunk(digest=put_blob(store, data), size_bytes=len(data))
    return ReleaseFile(path=path, sha256=chunk.digest, size_bytes=chunk.size_bytes, chunks=(chunk,))


def _record_publication(store: ObjectStore, manifest: ReleaseManifest, provenance: Provenance) -> None:
    entry = AuditEntry(
        model=manifest.model,
        action="publish",
        version=manifest.version,
        digest=manifest.digest,
        utc=manifest.created_utc,
        who=manifest.created_by,
        why=provenance.why,
    )
    record(store, entry)


def _refuse_unfit(checkpoint: Path, digests: Mapping[str, str]) -> None:
    for path in digests:
        if path in RELEASE_DOCUMENTS:
            raise DataError(
                f"refused checkpoint {checkpoint}: a release has a {path} of its own; rename or remove that file"
            )
        if Path(path).suffix in PICKLE_SUFFIXES:
            raise DataError(
                f"refused checkpoint {checkpoint}: {path} may hold a pickle, which runs code when loaded; "
                "export it as safetensors"
            )
