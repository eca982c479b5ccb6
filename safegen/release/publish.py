"""Make a checkpoint that passed the gate a release: all of it, or none of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from safegen.blobs import put_blob
from safegen.domain.digests import digest_json, sha256_bytes, tree_digests
from safegen.domain.release import (
    AuditEntry,
    ReleaseChunk,
    ReleaseFile,
    ReleaseManifest,
    check_name,
    utc_text,
)
from safegen.errors import DataError, PreconditionFailedError, StorageError
from safegen.ports import ObjectStore
from safegen.release.audit import record
from safegen.release.catalogue import Release, list_releases, next_version, passed_decision, release_of
from safegen.release.chunking import chunk_sizes
from safegen.release.layout import release_key

_logger = logging.getLogger(__name__)

_PARALLEL_CHUNKS = 4
_VERSION_ATTEMPTS = 50
_PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"})


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


def publish(
    store: ObjectStore, model: str, checkpoint: Path, decision: bytes, *, provenance: Provenance
) -> Release:
    """Publish a checkpoint folder under the next free version.

    Blobs go first, then `decision.json`, and last `manifest.json` in one conditional write: until then there
    is no release, and of several publishers racing for a version one gets it and the others take the next.
    The same checkpoint with the same decision is published once; asking again returns the release that is
    there.

    Args:
        store: Where releases live.
        model: Name of the released model.
        checkpoint: The checkpoint folder, safetensors only.
        decision: The gate's decision, as it wrote it: `outcome` must be "pass" and `checkpoint_sha256` this
            folder's.
        provenance: Who publishes, why, and what to note in the manifest.

    Returns:
        The release, new or existing.

    Raises:
        DataError: The decision is not a pass for this checkpoint, or the folder holds pickled weights.
        StorageError: The store failed; nothing is released, and publishing again carries on where this
            stopped.
    """
    check_name(model, "model")
    digests = tree_digests(checkpoint)
    checkpoint_digest = digest_json(digests)
    passed_decision(decision, checkpoint_digest)
    _refuse_pickles(checkpoint, digests)
    manifest = _existing(store, model, checkpoint_digest, sha256_bytes(decision))
    if manifest is None:
        draft = ReleaseManifest(
            model=model,
            version="1",
            checkpoint_digest=checkpoint_digest,
            decision_digest=sha256_bytes(decision),
            created_utc=utc_text(datetime.now(UTC)),
            created_by=provenance.who,
            files=tuple(_send_file(store, checkpoint, path, digest) for path, digest in digests.items()),
            metadata=dict(provenance.metadata),
        )
        manifest = _commit(store, draft, decision)
    _record_publication(store, manifest, provenance)
    return release_of(store, manifest)


def _commit(store: ObjectStore, draft: ReleaseManifest, decision: bytes) -> ReleaseManifest:
    """Take the first version that nobody else holds; the release is final once this returns."""
    first = next_version(store, draft.model)
    for version in range(first, first + _VERSION_ATTEMPTS):
        manifest = draft.model_copy(update={"version": str(version)})
        try:
            _put_once(store, release_key(manifest.model, manifest.version, "decision.json"), decision)
            store.put(
                release_key(manifest.model, manifest.version, "manifest.json"),
                manifest.to_bytes(),
                if_absent=True,
            )
        except PreconditionFailedError:
            winner = _existing(store, draft.model, draft.checkpoint_digest, draft.decision_digest)
            if winner is not None:
                return winner
            continue
        _logger.info("published %s@%s, manifest %s", manifest.model, manifest.version, manifest.digest)
        return manifest
    raise StorageError(
        f"cannot publish {draft.model}: versions {first} to {first + _VERSION_ATTEMPTS - 1} were all taken by others; "
        "publish again"
    )


def _put_once(store: ObjectStore, key: str, data: bytes) -> None:
    """Write an object unless these very bytes are there, left by a publication that was cut short."""
    try:
        store.put(key, data, if_absent=True)
    except PreconditionFailedError:
        if store.get(key) != data:
            raise


def _existing(
    store: ObjectStore, model: str, checkpoint_digest: str, decision_digest: str
) -> ReleaseManifest | None:
    for manifest in list_releases(store, model):
        if (manifest.checkpoint_digest, manifest.decision_digest) == (checkpoint_digest, decision_digest):
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


def _refuse_pickles(checkpoint: Path, digests: Mapping[str, str]) -> None:
    for path in digests:
        if Path(path).suffix in _PICKLE_SUFFIXES:
            raise DataError(
                f"refused checkpoint {checkpoint}: {path} may hold a pickle, which runs code when loaded; "
                "export it as safetensors"
            )
