"""Move the pointers that say which release is served, one compare-and-swap at a time."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from safegen.domain.release import AuditEntry, Channel, ReleaseManifest, check_name, utc_text
from safegen.errors import DataError, ObjectNotFoundError, StorageError
from safegen.ports import ObjectStore, Verifier
from safegen.release.audit import last_move, record
from safegen.release.catalogue import read_manifest
from safegen.release.layout import channel_key, parse_record
from safegen.release.verify import require_signed, require_valid, verify_stored

_logger = logging.getLogger(__name__)


def read_channel(store: ObjectStore, model: str, channel: str) -> Channel | None:
    """Return where a channel points, or None when there is no such channel.

    Raises:
        StorageError: The store failed, or the pointer is damaged or belongs to another channel.
    """
    key = channel_key(model, channel)
    try:
        data = store.get(key)
    except ObjectNotFoundError:
        return None
    pointer = parse_record(data, f"{store.uri}/{key}", Channel)
    if (pointer.model, pointer.channel) != (model, channel):
        raise StorageError(
            f"{store.uri}/{key} is the pointer of {pointer.model}@{pointer.channel}; do not use it"
        )
    return pointer


def list_channels(store: ObjectStore, model: str) -> tuple[Channel, ...]:
    """Return all channels of a model, sorted by name.

    Raises:
        StorageError: The store failed, or holds a damaged pointer.
    """
    prefix = f"channels/{check_name(model, 'model')}/"
    names = [info.key.removeprefix(prefix).removesuffix(".json") for info in store.list(prefix)]
    found = (read_channel(store, model, name) for name in names)
    return tuple(pointer for pointer in found if pointer is not None)


def move_channel(
    store: ObjectStore, model: str, channel: str, version: str, *, verifier: Verifier, who: str, why: str
) -> Channel:
    """Point a channel at a signed release that passed; one that points there already stays as it is.

    Args:
        store: Where releases live.
        model: Name of the model.
        channel: The channel to move, created when it does not exist.
        version: The release to point at.
        verifier: Which keys are trusted.
        who: Who moves it, for the audit record.
        why: The reason, for the audit record.

    Returns:
        The pointer as it is now.

    Raises:
        ObjectNotFoundError: There is no such release.
        PreconditionFailedError: Somebody else moved the channel meanwhile; look again before you repeat it.
        ReleaseRefusedError: The release's signature, manifest or decision does not hold.
        StorageError: The store failed.
    """
    manifest = read_manifest(store, model, version)
    require_signed(store, manifest, verifier)
    stored = store.head(
        channel_key(model, channel)
    )  # before the content: a newer content then fails the swap
    current = read_channel(store, model, channel) if stored else None
    if current is None or current.digest != manifest.digest:
        moved = _pointer_to(manifest, channel, current, who=who, why=why)
        store.put(
            channel_key(model, channel),
            moved.to_bytes(),
            if_absent=stored is None,
            if_match=stored.etag if stored else None,
        )
        _logger.info("channel %s@%s now points at %s (before: %s)", model, channel, version, moved.previous)
        current = moved
    record(store, _audit_entry(current))
    return current


def rollback(
    store: ObjectStore, model: str, channel: str, to_version: str, *, verifier: Verifier, who: str, why: str
) -> Channel:
    """Point a channel back at an earlier release, of which every byte is read and proven first.

    What is earlier follows from the last move on record, so that this also mends a pointer that somebody deleted, or
    replaced by an old one.

    Raises:
        DataError: The channel does not exist, so there is nothing to roll back, or the version is newer than
            its own.
        ObjectNotFoundError: There is no such release.
        PreconditionFailedError: Somebody else moved the channel meanwhile.
        ReleaseRefusedError: The release is unsigned, altered, incomplete, or not one that passed.
        StorageError: The store failed.
    """
    current = read_channel(store, model, channel)
    last = last_move(store, model, channel, after_utc=current.utc if current else "") or current
    if last is None:
        raise DataError(
            f"cannot roll back {model}@{channel}: there is no such channel; promote a release to it first"
        )
    read_manifest(store, model, to_version)
    if int(to_version) > int(last.version):
        raise DataError(
            f"cannot roll back {model}@{channel} to {to_version}: it is newer than version "
            f"{last.version}; promote it"
        )
    require_valid(verify_stored(store, model, to_version, verifier), f"{model}@{to_version}")
    return move_channel(store, model, channel, to_version, verifier=verifier, who=who, why=why)


def _pointer_to(
    manifest: ReleaseManifest, channel: str, current: Channel | None, *, who: str, why: str
) -> Channel:
    return Channel(
        model=manifest.model,
        channel=channel,
        version=manifest.version,
        digest=manifest.digest,
        previous=current.version if current else None,
        utc=_time_after(current),
        who=who,
        why=why,
    )


def _time_after(current: Channel | None) -> str:
    """Return the time of a move: now, or just after the last one where a clock stands behind that."""
    now = utc_text(datetime.now(UTC))
    if current is None or now > current.utc:
        return now
    return utc_text(datetime.fromisoformat(current.utc) + timedelta(microseconds=1))


def _audit_entry(pointer: Channel) -> AuditEntry:
    goes_back = pointer.previous is not None and int(pointer.version) < int(pointer.previous)
    return AuditEntry(
        model=pointer.model,
        action="rollback" if goes_back else "promote",
        version=pointer.version,
        digest=pointer.digest,
        channel=pointer.channel,
        previous=pointer.previous,
        utc=pointer.utc,
        who=pointer.who,
        why=pointer.why,
    )
