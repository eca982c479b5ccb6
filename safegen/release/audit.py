"""The audit record: one object per thing that happened to a model's releases, added and never changed."""

from __future__ import annotations

from safegen.domain.release import AuditEntry, check_name
from safegen.errors import PreconditionFailedError
from safegen.ports import ObjectStore
from safegen.release.layout import parse_record


def record(store: ObjectStore, entry: AuditEntry) -> None:
    """Add an entry; adding the same one again changes nothing.

    The key follows from the entry's content, so a job that was killed between its deed and its entry adds the
    entry when it is run again, and no job adds it twice.

    Raises:
        StorageError: The store failed.
    """
    try:
        store.put(entry.key, entry.to_bytes(), if_absent=True)
    except PreconditionFailedError:
        return


def read_audit(store: ObjectStore, model: str) -> tuple[AuditEntry, ...]:
    """Return a model's audit entries in order of time.

    Raises:
        StorageError: The store failed, or holds a damaged entry.
    """
    keys = [info.key for info in store.list(f"audit/{check_name(model, 'model')}/")]
    return tuple(parse_record(store.get(key), f"{store.uri}/{key}", AuditEntry) for key in keys)
