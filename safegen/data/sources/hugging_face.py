"""Images in a Hugging Face dataset: saved on disk, or on the Hub at a pinned revision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, final

from safegen.data.decode import RefusedImageError
from safegen.data.sources.source import SourceItem, refusing, safe_caption, safe_name
from safegen.domain.dataset import Reason, Role
from safegen.errors import ConfigError, DataError

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

Rows = TypeVar("Rows", "Dataset", "IterableDataset")


@final
@dataclass(frozen=True)
class HuggingFaceSource:
    """A dataset of the `datasets` library. The library never decodes a picture, and no code of a dataset is run.

    Attributes:
        dataset: A folder written by `save_to_disk`, or else a Hub id (then streamed, and `revision` is a must).
        role: The role of all its images.
        revision: Commit of the Hub repository; None for a folder.
        split: Of a dataset with several splits.
        image_column: A column of images or of encoded bytes.
        caption_column: Text; None for no captions.
        label: Defaults to the folder's name or the Hub id.
    """

    dataset: str
    role: Role
    revision: str | None = None
    split: str = "train"
    image_column: str = "image"
    caption_column: str | None = None
    label: str = ""

    def __post_init__(self) -> None:
        name = Path(self.dataset).absolute().name if self._is_on_disk() else self.dataset
        object.__setattr__(self, "label", self.label or safe_name(name))
        if not self._is_on_disk() and not self.revision:
            raise ConfigError(
                f"dataset {self.dataset!r} is not a folder, and no revision is given; pin a commit"
            )

    def items(self, max_bytes: int) -> Iterator[SourceItem]:
        """Iterate over the rows; see `Source.items`. On disk a picture is read only if an item is.

        Raises:
            DataError: There is no such dataset, split or column, or it cannot be fetched.
        """
        del max_bytes  # a row is read whole; the decoder refuses it by its length
        yield from self._saved_items() if self._is_on_disk() else self._streamed_items()

    def _is_on_disk(self) -> bool:
        return Path(self.dataset).is_dir() and self.revision is None

    def _saved_items(self) -> Iterator[SourceItem]:
        rows = self._load_saved()
        captions = rows.select_columns([self.caption_column]) if self.caption_column else None
        fingerprint = str(rows._fingerprint)  # noqa: SLF001  (the library's own identity of a dataset's content)
        for index in range(rows.num_rows):
            caption = safe_caption(captions[index][self.caption_column]) if captions is not None else ""
            read = _reader(lambda index=index: rows[index][self.image_column])
            yield SourceItem(str(index), read, caption, fingerprint, concurrent=False)

    def _streamed_items(self) -> Iterator[SourceItem]:
        for index, row in enumerate(self._stream()):
            caption = safe_caption(row.get(self.caption_column)) if self.caption_column else ""
            value = row.get(self.image_column)
            yield SourceItem(
                str(index),
                _reader(lambda value=value: value),
                caption,
                f"{self.revision}:{self.split}",
                concurrent=True,
            )

    def _load_saved(self) -> Dataset:
        from datasets import DatasetDict, load_from_disk

        try:
            loaded = load_from_disk(self.dataset)
        except Exception as error:
            raise DataError(
                f"cannot load dataset {self.dataset}: {_one_line(error)}; expected save_to_disk's form"
            ) from error
        if isinstance(loaded, DatasetDict):
            if self.split not in loaded:
                raise DataError(
                    f"dataset {self.dataset} has no split {self.split!r}; it has {sorted(map(str, loaded))}"
                )
            loaded = loaded[self.split]
        return self._undecoded(loaded)

    def _stream(self) -> Iterator[dict[str, object]]:
        from datasets import load_dataset

        try:
            rows = load_dataset(self.dataset, revision=self.revision, split=self.split, streaming=True)
            yield from self._undecoded(rows)
        except DataError:
            raise
        except Exception as error:  # the library lets errors of many libraries below it through
            raise DataError(
                f"cannot stream dataset {self.dataset} at {self.revision}: {_one_line(error)}; "
                "check the id, the revision, the split and the network"
            ) from error

    def _undecoded(self, rows: Rows) -> Rows:
        from datasets import Image

        features = rows.features
        for column in filter(None, (self.image_column, self.caption_column)):
            if features is not None and column not in features:
                raise DataError(
                    f"dataset {self.dataset} has no column {column!r}; it has {sorted(features)[:20]}"
                )
        if features is not None and isinstance(features[self.image_column], Image):
            return rows.cast_column(self.image_column, Image(decode=False))
        return rows


def _reader(value: Callable[[], object]) -> Callable[[], bytes]:
    def read() -> bytes:
        image = value()
        if isinstance(image, dict):
            image = image.get("bytes") or image
        if isinstance(image, bytes):
            return image
        if isinstance(image, dict) and image.get("path"):
            return refusing(Reason.OUTSIDE_SOURCE, "the row names a file instead of holding its bytes")()
        raise RefusedImageError(Reason.NO_BYTES, "the row holds no image bytes")

    return read


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
