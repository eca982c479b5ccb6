"""SHA-256 digests of bytes, files, JSON values and folders, always as 64 lower-case hex digits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import rfc8785

from safegen.errors import DataError


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data`.

    >>> sha256_bytes(b"abc")[:16]
    'ba7816bf8f01cfea'
    """
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's content, read in blocks.

    Raises:
        DataError: The file is missing or cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot hash {path}: {error.strerror or error}; expected a readable file") from error


def canonical_json(value: object) -> bytes:
    """Return the canonical JSON form of `value` (RFC 8785): sorted keys, no spaces, shortest numbers.

    Args:
        value: Nested dicts with string keys, lists or tuples, strings, numbers, booleans and None.

    Raises:
        DataError: The value has no canonical form (NaN, an integer beyond 2**53 - 1, an unknown type).
    """
    try:
        return rfc8785.dumps(value)  # pyright: ignore[reportArgumentType]  (it checks the types itself)
    except (rfc8785.CanonicalizationError, UnicodeError, AttributeError, TypeError) as error:
        raise DataError(f"cannot digest a JSON value: {error}; expected plain finite JSON") from error


def digest_json(value: object) -> str:
    """Return the SHA-256 of the canonical JSON form of `value`: the same whatever the order of keys.

    Raises:
        DataError: As `canonical_json`.

    >>> digest_json({"b": 1, "a": [2.0, None]}) == digest_json({"a": [2, None], "b": 1})
    True
    """
    return sha256_bytes(canonical_json(value))


def tree_digests(folder: Path | str) -> dict[str, str]:
    """Return the SHA-256 of every file under `folder`, keyed by its POSIX path relative to it, sorted.

    Raises:
        DataError: The folder is missing, or holds a symbolic link or anything that is neither file nor
            folder (a link could change what a digest stands for without changing the digest).
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"cannot hash folder {root}: no such folder; give the folder itself")
    return dict(sorted((path.relative_to(root).as_posix(), sha256_file(path)) for path in _plain_files(root)))


def tree_digest(folder: Path | str) -> str:
    """Return the one digest that stands for a folder: `digest_json(tree_digests(folder))`.

    Raises:
        DataError: As `tree_digests`.
    """
    return digest_json(tree_digests(folder))


def _plain_files(folder: Path) -> Iterator[Path]:
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"cannot list {folder}: {error.strerror or error}; expected a readable folder"
        ) from error
    for path in entries:
        if path.is_symlink():
            raise DataError(f"cannot hash {path}: it is a symbolic link; replace it by the file it points to")
        if path.is_dir():
            yield from _plain_files(path)
        elif path.is_file():
            yield path
        else:
            raise DataError(f"cannot hash {path}: neither a file nor a folder; remove it")
