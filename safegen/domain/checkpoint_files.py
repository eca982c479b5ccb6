"""What a checkpoint folder may hold. A pickle file runs code when loaded: such a folder is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from safegen.domain.release import RELEASE_DOCUMENTS

PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".joblib"})
_MAGIC_LENGTH = 4


def without_documents(digests: Mapping[str, str]) -> dict[str, str]:
    """Leave out what a release put beside a checkpoint's files.

    A pulled release is the checkpoint that was decided on and five documents, which no checkpoint may bring itself
    (publishing refuses that) and no loader reads: without them it has the digest that its decision names.

    Args:
        digests: SHA-256 of every file of a folder by its path.
    """
    return {path: digest for path, digest in digests.items() if path not in RELEASE_DOCUMENTS}


def checkpoint_problems(folder: Path, files: Iterable[str]) -> list[str]:
    """List why a checkpoint folder must not be loaded; empty where it may.

    Args:
        folder: The folder.
        files: POSIX paths of all its files, relative to it.

    Raises:
        OSError: A file cannot be read.
    """
    names = sorted(files)
    problems = [f"{name} is a pickle file" for name in names if _is_pickle(folder, name)]
    if not any(name.endswith(".safetensors") for name in names):
        problems.append("there is no .safetensors file")
    return problems


def _is_pickle(folder: Path, name: str) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        return True
    if suffix == ".safetensors":
        return False  # begins with a length, which may look like anything; its loader never unpickles
    with (folder / name).open("rb") as file:
        magic = file.read(_MAGIC_LENGTH)
    return magic.startswith((b"PK\x03\x04", *(bytes([0x80, protocol]) for protocol in range(2, 6))))
