"""Every kind of source offers the same pictures, and none reads what it must not."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from safegen.adapters.folder_store import FolderStore
from safegen.data.decode import RefusedImageError
from safegen.data.sources import (
    FolderSource,
    HuggingFaceSource,
    ObjectPrefixSource,
    ParquetSource,
    Source,
    WebDatasetSource,
)
from safegen.domain.dataset import Reason
from safegen.errors import ConfigError, DataError

MAX_BYTES = 100_000
CAPTIONS = [f"picture number {index}" for index in range(5)]


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [png(seed) for seed in range(5)]


def folder(path: Path) -> Source:
    path.mkdir()
    for index, data in enumerate(PICTURES):
        (path / f"{index}.png").write_bytes(data)
    rows = "".join(f"{index}.png,{caption}\n" for index, caption in enumerate(CAPTIONS))
    (path / "captions.csv").write_text("file_name,caption\n" + rows)
    return FolderSource(path, "benign")


def prefix(path: Path) -> Source:
    store = FolderStore(path)
    for index, data in enumerate(PICTURES):
        store.put(f"raw/set/{index}.png", data)
    rows = "".join(f"{caption},{index}.png\n" for index, caption in enumerate(CAPTIONS))
    store.put("raw/set/metadata.csv", ("text,file\n" + rows).encode())
    store.put("raw/settled/other.png", png(9))
    return ObjectPrefixSource(store, "raw/set", "benign")


def parquet(path: Path) -> Source:
    path.mkdir()
    for shard, part in enumerate((slice(0, 3), slice(3, 5))):
        images = pa.array(PICTURES[part], pa.binary())
        pq.write_table(
            pa.table({"png": images, "text": CAPTIONS[part]}), path / f"{shard}.parquet", row_group_size=2
        )
    return ParquetSource(path, "benign", image_column="png", caption_column="text")


def hub_parquet(path: Path) -> Source:
    images = pa.array([{"bytes": data, "path": "x.png"} for data in PICTURES])
    pq.write_table(pa.table({"image": images, "text": CAPTIONS}), path)
    return ParquetSource(path, "benign", caption_column="text")


def webdataset(path: Path) -> Source:
    with tarfile.open(path, "w") as tar:
        for index, data in enumerate(PICTURES):
            side = (
                ("txt", CAPTIONS[index].encode())
                if index % 2
                else ("json", json.dumps({"caption": CAPTIONS[index]}).encode())
            )
            for suffix, content in (("png", data), side):
                member = tarfile.TarInfo(f"set/{index:04}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return WebDatasetSource(path, "benign")


def hugging_face(path: Path) -> Source:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = {"image": [{"bytes": data, "path": None} for data in PICTURES], "text": CAPTIONS}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(path)
    return HuggingFaceSource(str(path), "benign", caption_column="text")


KINDS = [folder, prefix, parquet, hub_parquet, webdataset, hugging_face]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_every_source_offers_the_same_pictures(make: Callable[[Path], Source], tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    items = [(item, item.read()) for item in source.items(MAX_BYTES)]
    assert [data for _, data in items] == PICTURES
    assert [item.caption for item, _ in items] == CAPTIONS
    assert len({item.name for item, _ in items}) == len(items)
    assert str(tmp_path) not in source.label
    again = [(item.name, item.fingerprint) for item in source.items(MAX_BYTES)]  # nothing read this time
    assert again == [(item.name, item.fingerprint) for item, _ in items]


def test_hub_datasets_are_streamed_undecoded_at_a_pinned_revision(tmp_path: Path) -> None:
    shard = tmp_path / "repository" / "data"
    shard.mkdir(parents=True)
    hub_parquet(shard / "train-0.parquet")
    source = HuggingFaceSource(str(shard.parent), "benign", revision="0" * 40, caption_column="text")
    items = list(source.items(MAX_BYTES))
    assert [item.read() for item in items] == PICTURES
    assert [item.caption for item in items] == CAPTIONS
    with pytest.raises(ConfigError, match="revision"):
        HuggingFaceSource("someone/something", "benign")


def refusals(source: Source) -> dict[str, Reason]:
    found = {}
    for item in source.items(MAX_BYTES):
        try:
            item.read()
        except RefusedImageError as refusal:
            found[item.name] = refusal.reason
    return found


def test_folder_is_never_left_and_names_are_tamed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(8))
    root = tmp_path / "set"
    (root / "below").mkdir(parents=True)
    (root / "below" / "two\nlines, ü.png").write_bytes(PICTURES[0])
    (root / os.fsdecode(b"raw-\xff.png")).write_bytes(PICTURES[1])
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "linked-folder").symlink_to(tmp_path)
    os.mkfifo(root / "pipe.png")
    source = FolderSource(root, "unsafe")
    assert refusals(source) == {
        "link.png": Reason.SYMLINK,
        "linked-folder": Reason.SYMLINK,
        "pipe.png": Reason.NOT_A_FILE,
    }
    names = [item.name for item in source.items(MAX_BYTES)]
    assert "below/two%0Alines%2C%20%C3%BC.png" in names
    assert "raw-%FF.png" in names
    assert all(name.isascii() and name.isprintable() for name in names)


def test_a_link_that_takes_a_files_place_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(8))
    root = tmp_path / "set"
    root.mkdir()
    (root / "a.png").write_bytes(PICTURES[0])
    (item,) = FolderSource(root, "unsafe").items(MAX_BYTES)
    (root / "a.png").unlink()
    (root / "a.png").symlink_to(secret)
    with pytest.raises(RefusedImageError) as refusal:
        item.read()
    assert refusal.value.reason is Reason.UNREADABLE


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(5000))
    (item,) = FolderSource(tmp_path, "benign").items(1000)
    assert len(item.read()) == 1001
    store = FolderStore(tmp_path / "store")
    store.put("raw/large.png", bytes(5000))
    (item,) = ObjectPrefixSource(store, "raw", "benign").items(1000)
    with pytest.raises(RefusedImageError, match="too_many_bytes"):
        item.read()


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def test_tar_members_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    shard = tmp_path / "s.tar"
    with tarfile.open(shard, "w") as tar:
        add(tar, "1.png", PICTURES[0])
        add(tar, "../2.png", PICTURES[1])
        add(tar, "/3.png", PICTURES[2])
        add(tar, "4.png", type=tarfile.SYMTYPE, linkname="/etc/hostname")
        add(tar, "5.png", type=tarfile.LNKTYPE, linkname="1.png")
        add(tar, "6.png", type=tarfile.CHRTYPE)
        add(tar, "7.png", bytes(MAX_BYTES + 1))
    assert refusals(WebDatasetSource(shard, "benign")) == {
        "s.tar/../2.png": Reason.OUTSIDE_SOURCE,
        "s.tar//3.png": Reason.OUTSIDE_SOURCE,
        "s.tar/4.png": Reason.SYMLINK,
        "s.tar/5.png": Reason.SYMLINK,
        "s.tar/6.png": Reason.NOT_A_FILE,
        "s.tar/7.png": Reason.TOO_MANY_BYTES,
    }


@pytest.mark.parametrize("damage", ["cut", "overwritten", "no tar at all"])
def test_a_damaged_tar_gives_what_it_can_and_is_reported(damage: str, tmp_path: Path) -> None:
    source = webdataset(tmp_path / "s.tar")
    data = bytearray((tmp_path / "s.tar").read_bytes())
    if damage == "cut":
        data = data[: len(data) // 3]
    elif damage == "overwritten":
        start = data.index(b"set/0002.png")
        data[start : start + 512] = b"\xaa" * 512
    else:
        data = bytearray(b"not a tar" * 1000)
    (tmp_path / "s.tar").write_bytes(data)
    assert set(refusals(source).values()) & {Reason.BROKEN_SHARD, Reason.TRUNCATED}


def test_parquet_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": [1, 2], "text": ["a", "b"]}), path)
    with pytest.raises(DataError, match=r"'image'.*int64.*expected binary"):
        list(ParquetSource(path, "benign").items(MAX_BYTES))
    with pytest.raises(DataError, match="no column 'png'"):
        list(ParquetSource(path, "benign", image_column="png").items(MAX_BYTES))
    path.write_bytes(path.read_bytes()[:-20])
    assert refusals(ParquetSource(path, "benign")) == {"x.parquet": Reason.BROKEN_SHARD}
    pq.write_table(pa.table({"image": pa.array([None, PICTURES[0]], pa.binary())}), path)
    assert refusals(ParquetSource(path, "benign")) == {"x.parquet/0": Reason.NO_BYTES}


def test_rows_that_name_files_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(8))
    rows = pa.array(
        [{"bytes": None, "path": str(tmp_path / "secret.png")}],
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    )
    pq.write_table(pa.table({"image": rows}), tmp_path / "x.parquet")
    assert refusals(ParquetSource(tmp_path / "x.parquet", "benign")) == {"x.parquet/0": Reason.NO_BYTES}
    import datasets

    features = datasets.Features({"image": datasets.Image()})
    saved = datasets.Dataset(rows_table(rows), info=datasets.DatasetInfo(features=features))
    saved.save_to_disk(tmp_path / "saved", max_shard_size="1MB")
    reasons = refusals(HuggingFaceSource(str(tmp_path / "saved"), "benign"))
    assert reasons in ({"0": Reason.OUTSIDE_SOURCE}, {})  # {} if the library embedded the bytes when it saved


def rows_table(rows: pa.Array) -> object:
    import datasets

    return datasets.table.InMemoryTable(pa.table({"image": rows}))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"a,b\n1,2\n", "expected one of"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b'file_name,caption\n"x.png,"broken" quotes\n', "CSV"),
    ],
)
def test_broken_caption_tables_are_refused(table: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_bytes(table)
    with pytest.raises(DataError, match=message):
        list(FolderSource(tmp_path, "benign").items(MAX_BYTES))


def test_missing_sources_are_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for source in (
        FolderSource(gone, "benign"),
        ParquetSource(gone, "benign"),
        WebDatasetSource(gone, "benign"),
        ObjectPrefixSource(FolderStore(tmp_path / "store"), "gone", "benign"),
    ):
        with pytest.raises(DataError, match="gone"):
            list(source.items(MAX_BYTES))
