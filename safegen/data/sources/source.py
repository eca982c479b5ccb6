"""The seam between ingestion and the places that images come from."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from safegen.data.decode import RefusedImageError
from safegen.domain.dataset import Reason, Role

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")
_MAX_CAPTION = 2000


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One image on offer.

    Attributes:
        name: Percent-encoded name within the source, unique in it (`safe_name`).
        read: Returns its bytes, at most one more than the source was told to read; raises
            `RefusedImageError` if they are not to be read.
        caption: One line, may be empty (`safe_caption`).
        fingerprint: Changes whenever the bytes may have changed.
        concurrent: Whether `read` may be called in any order and from any thread. If not, it is called at
            once or never, before the next item is asked for.
    """

    name: str
    read: Callable[[], bytes]
    caption: str
    fingerprint: str
    concurrent: bool


class Source(Protocol):
    """A set of images that share a role. To add a kind, write a class of this form in a file of its own."""

    @property
    def label(self) -> str:
        """Name of the source in manifests: no machine's path, so that digests are the same anywhere."""
        ...

    @property
    def role(self) -> Role:
        """The role of all its images."""
        ...

    def items(self, max_bytes: int) -> Iterator[SourceItem]:
        """Iterate over what is on offer, without reading any picture that `read` is not called for.

        Args:
            max_bytes: A read need return no more than one byte more than this.

        Raises:
            DataError: The source as a whole is missing or of the wrong form.
            StorageError: The store that it is in failed.
        """
        ...


def safe_name(name: str) -> str:
    r"""Return a name in printable ASCII: percent-encoded but for slashes, whatever bytes it was made of.

    >>> safe_name("a\nb/c d.png")
    'a%0Ab/c%20d.png'
    """
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:  # a lone surrogate that no file system made
        encoded = name.encode(errors="surrogatepass")
    return quote(encoded, safe="/")


def safe_caption(text: object) -> str:
    r"""Return a caption as one line of at most 2000 characters, free of control characters; "" if it is none.

    >>> safe_caption("two\nlines"), safe_caption(None), safe_caption(float("nan"))
    ('two lines', '', '')
    """
    if not isinstance(text, str):
        return ""
    return _CONTROL.sub(" ", text).strip()[:_MAX_CAPTION]


def refusing(reason: Reason, detail: str) -> Callable[[], bytes]:
    """Return a `read` that refuses: how a source reports an item that must not be opened."""

    def read() -> bytes:
        raise RefusedImageError(reason, detail)

    return read
