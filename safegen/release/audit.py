"""The audit record: one object per thing that happened to a model's releases, added and never changed.

Entries are chained: each names the digests of those before it. So an entry that is changed or removed later is missed
by the one that followed, and `audit_problems` tells; the last ones are missed by the release or channel that they are
about. Every signed manifest names the entries before it, so nobody without the signing key can write the log anew
from its beginning. What the chain cannot show is an entry invented by somebody who may write here.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from safegen.domain.digests import sha256_bytes
from safegen.domain.release import AuditEntry, Channel, ReleaseManifest, check_name
from safegen.errors import PreconditionFailedError
from safegen.ports import ObjectStore
from safegen.release.layout import parse_record


def record(store: ObjectStore, entry: AuditEntry) -> None:
    """Add an entry after those that are there; adding the same one again changes nothing.

    The key follows from what happened, so a job that was killed between its deed and its entry adds the entry when
    it is run again, and no job adds it twice.

    Raises:
        StorageError: The store failed.
    """
    if store.head(entry.key) is not None:
        return
    chained = entry.model_copy(update={"parents": audit_heads(store, entry.model)})
    try:
        store.put(chained.key, chained.to_bytes(), if_absent=True)
    except PreconditionFailedError:
        return


def read_audit(store: ObjectStore, model: str) -> tuple[AuditEntry, ...]:
    """Return a model's audit entries in order of time.

    Raises:
        StorageError: The store failed, or holds a damaged entry.
    """
    stored = _stored(store, model)
    return tuple(parse_record(data, f"{store.uri}/{key}", AuditEntry) for key, data in stored.items())


def audit_heads(store: ObjectStore, model: str) -> tuple[str, ...]:
    """Return the digests of the entries that no other follows, sorted: what the next entry names as its parents.

    A damaged entry counts as one, so that a damaged log can still be added to.

    Raises:
        StorageError: The store failed.
    """
    stored = _stored(store, model)
    followed = {parent for entry in _entries(stored).values() for parent in entry.parents}
    return tuple(sorted({sha256_bytes(data) for data in stored.values()} - followed))


def audit_problems(
    store: ObjectStore, model: str, releases: tuple[ReleaseManifest, ...], channels: tuple[Channel, ...]
) -> tuple[str, ...]:
    """Say what shows that a model's audit log was tampered with; nothing for a log that is whole.

    Args:
        store: Where the log is.
        model: Name of the model.
        releases: The model's releases; each must have its entry, and name entries that are there.
        channels: The model's channels; the last move of each must have its entry.

    Raises:
        StorageError: The store failed.
    """
    stored = _stored(store, model)
    entries = _entries(stored)
    digests = {sha256_bytes(data) for data in stored.values()}
    problems = [
        f"{key} is not the entry that was written under this name"
        for key in stored
        if key not in entries or entries[key].key != key
    ]
    expected = {parent: f"before {entry.key}" for entry in entries.values() for parent in entry.parents}
    expected |= {head: f"before release {one.version}" for one in releases for head in one.audit_heads}
    problems += [
        f"entry {digest[:12]} ({where}) is missing or changed"
        for digest, where in expected.items()
        if digest not in digests
    ]
    published = {one.digest for one in entries.values() if one.action == "publish"}
    problems += [
        f"the publication of {one.name} has no entry" for one in releases if one.digest not in published
    ]
    moved = {(one.channel, one.digest, one.utc) for one in entries.values()}
    problems += [
        f"the last move of {one.model}@{one.channel} has no entry"
        for one in channels
        if (one.channel, one.digest, one.utc) not in moved
    ]
    return tuple(problems)


def _stored(store: ObjectStore, model: str) -> dict[str, bytes]:
    keys = [info.key for info in store.list(f"audit/{check_name(model, 'model')}/")]
    return {key: store.get(key) for key in keys}


def _entries(stored: Mapping[str, bytes]) -> dict[str, AuditEntry]:
    entries: dict[str, AuditEntry] = {}
    for key, data in stored.items():
        try:
            entries[key] = AuditEntry.model_validate_json(data)
        except ValidationError:
            continue  # audit_problems names it
    return entries
