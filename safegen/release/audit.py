"""The audit record: one object per thing that happened to a model's releases, added and never changed.

Entries are chained: each names the digests of those before it. So an entry that is changed or removed later is missed
by the one that followed, and `audit_problems` tells; the last ones are missed by the release or channel that they are
about. Every signed manifest names the entries before it, so nobody without the signing key can write the log anew
from its beginning. What the chain cannot show is an entry invented by somebody who may write here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from pydantic import ValidationError

from safegen.domain.digests import sha256_bytes
from safegen.domain.release import AuditEntry, Channel, ReleaseManifest, audit_time, check_name
from safegen.errors import PreconditionFailedError, StorageError
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


def last_move(store: ObjectStore, model: str, channel: str, *, after_utc: str = "") -> AuditEntry | None:
    """Return the last recorded move of a channel.

    Each move of a channel has a later time than the one before (`move_channel` sees to that), and its entry has that
    time in its name, so that only entries named later than `after_utc` are read.

    Args:
        store: Where the log is.
        model: Name of the model.
        channel: Name of the channel.
        after_utc: Only a later one; empty for any.

    Raises:
        StorageError: The store failed.
    """
    for entry in _later_entries(store, model, after_utc):
        if entry.channel == channel and entry.utc > after_utc:
            return entry
    return None


def require_last_move(store: ObjectStore, pointer: Channel) -> None:
    """Refuse a channel pointer that was moved on from since: somebody has put an old one back.

    A pointer without an entry of its own is that of a move that was cut short, or a forged one: `audit_problems` tells.

    Raises:
        StorageError: A later move is on record, or the store failed.
    """
    entry = last_move(store, pointer.model, pointer.channel, after_utc=pointer.utc)
    if entry is not None:
        raise StorageError(
            f"refused {pointer.model}@{pointer.channel}: its pointer to version {pointer.version} is of {pointer.utc}, "
            f"but {entry.who} moved it to version {entry.version} at {entry.utc}; an old pointer was put back: "
            f"find out by whom, and set it right with safegen rollback {pointer.model} --to {entry.version}"
        )


def _later_entries(store: ObjectStore, model: str, utc: str) -> Iterator[AuditEntry]:
    prefix = f"audit/{check_name(model, 'model')}/"
    after = audit_time(utc)
    keys = [info.key for info in store.list(prefix)]
    for key in sorted((key for key in keys if key.removeprefix(prefix) > after), reverse=True):
        with suppress(ValidationError):  # a damaged one: audit_problems names it
            yield AuditEntry.model_validate_json(store.get(key))


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
    gone = {one.channel for one in entries.values() if one.channel} - {one.channel for one in channels}
    problems += [f"{model}@{channel} was moved, and is gone" for channel in sorted(gone)]
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
