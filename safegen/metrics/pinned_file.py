"""Weights of published nets: a file by path or URL that is used only if its SHA-256 is the one that was named."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from pathlib import Path

from safegen.domain.digests import sha256_file
from safegen.errors import DataError

INCEPTION_URL = (
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
)
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
ALEXNET_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"

_TIMEOUT_S = 60


def pinned_file(location: str, sha256: str, *, what: str, cache_dir: Path) -> Path:
    """Return a file with exactly these bytes.

    Args:
        location: Path, or URL with http or https; what comes from a URL is kept in `cache_dir` and fetched once.
        sha256: Of its content, in hexadecimal.
        what: What errors call it.
        cache_dir: Where fetched files are kept, by digest.

    Raises:
        DataError: There is no such file, it cannot be fetched, or it holds other bytes.
    """
    if location.startswith(("https://", "http://")):
        path = cache_dir / f"{sha256}{Path(location).suffix}"
        if not path.is_file():
            _fetch(location, path, sha256, what)
    else:
        path = Path(location)
        if not path.is_file():
            raise DataError(f"{what}: there is no file {path}; fetch it with: curl -L -o {path} URL")
    _check(path, sha256, what, location)
    return path


def _fetch(url: str, path: Path, sha256: str, what: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pending = path.with_name(f"{path.name}.part")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer, pending.open("wb") as file:  # noqa: S310  (http or https, see above)
            shutil.copyfileobj(answer, file)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise DataError(
            f"{what}: {url} cannot be fetched ({error}); fetch it elsewhere and put it here: "
            f"mkdir -p {path.parent} && curl -L -o {path} {url}"
        ) from error
    _check(pending, sha256, what, url)
    pending.replace(path)


def _check(path: Path, sha256: str, what: str, location: str) -> None:
    found = sha256_file(path)
    if found != sha256:
        raise DataError(
            f"{what}: {location} has SHA-256 {found}, expected {sha256}; use that file, or name the digest of this one"
        )
