"""The proof that a store refuses conditional writes that must fail; some servers accept and ignore conditions."""

from __future__ import annotations

from safegen.errors import PreconditionFailedError, StorageError
from safegen.ports import ObjectStore


def prove_conditional_writes(store: ObjectStore, key: str) -> None:
    """Write, try to overwrite under conditions that do not hold, and clean up.

    Args:
        store: The store.
        key: A key that nobody uses, under which this identity may write and delete.

    Raises:
        StorageError: The store accepted what it must refuse, or failed.
    """
    first = store.put(key, b"1", if_absent=True)
    try:
        _must_be_refused(store, key, if_absent=True)
        _must_be_refused(store, key, if_match='"00000000000000000000000000000000"')
        store.put(key, b"2", if_match=first.etag)
    finally:
        store.delete(key)


def _must_be_refused(
    store: ObjectStore, key: str, *, if_absent: bool = False, if_match: str | None = None
) -> None:
    try:
        store.put(key, b"3", if_absent=if_absent, if_match=if_match)
    except PreconditionFailedError:
        return
    header = "If-None-Match: *" if if_absent else "If-Match"
    raise StorageError(
        f"{store.uri} ignores {header} (a PUT that must be refused with 412 was accepted), so releases could be "
        "overwritten there; use a server with conditional writes"
    )
