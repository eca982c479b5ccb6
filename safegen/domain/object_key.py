"""Which strings may name an object in a store, and where content-addressed objects lie."""

from __future__ import annotations

import re

from safegen.errors import StorageError

MAX_KEY_BYTES = 1024
"""The limit of S3; every store keeps it, so that content can move between stores."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_key(key: str) -> str:
    """Return `key` when it may name an object, so that no key can leave the store's own space.

    A key is a relative POSIX path in its simplest form: no empty, `.` or `..` part, no leading or trailing
    slash, no backslash and no control character.

    Raises:
        StorageError: The key may not be used.

    >>> check_key("releases/sd/1/manifest.json")
    'releases/sd/1/manifest.json'
    """
    reason = _reason_against(key)
    if reason:
        raise StorageError(
            f"refused object key {key!r}: {reason}; expected a plain relative path such as 'runs/a.json'"
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` when keys may begin with it: a key, a key with a trailing slash, or nothing.

    Raises:
        StorageError: No key can begin so.
    """
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


def blob_key(digest: str) -> str:
    """Return the key of the content with this SHA-256.

    Raises:
        StorageError: `digest` is not 64 lower-case hex digits.

    >>> blob_key("ab" * 32)[:20]
    'blobs/sha256/ab/abab'
    """
    if not _DIGEST.fullmatch(digest):
        raise StorageError(f"refused blob digest {digest!r}: expected 64 lower-case hex digits of a SHA-256")
    return f"blobs/sha256/{digest[:2]}/{digest}"


def _reason_against(key: str) -> str | None:
    if any(ord(character) < 32 or ord(character) == 127 for character in key):
        return "it holds a control character"
    if "\\" in key:
        return "it holds a backslash"
    if any(part in ("", ".", "..") for part in key.split("/")):
        return "it has an empty, '.' or '..' part"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    return f"it is {size} bytes long, the limit is {MAX_KEY_BYTES}" if size > MAX_KEY_BYTES else None
