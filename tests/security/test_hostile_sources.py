"""Raw data made to exhaust, escape or confuse: each item is refused with its reason, and all others are taken in."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageCms

from safegen.adapters.folder_store import FolderStore
from safegen.config import load_config
from safegen.data.decode import DecodeLimits
from safegen.data.ingest import IngestLimits, ingest
from safegen.data.manifest import read_images, read_quarantine
from safegen.data.sources import FolderSource, ParquetSource, WebDatasetSource
from safegen.data.sources.caption_table import parse_captions
from safegen.domain.dataset import Reason
from safegen.errors import ConfigError, DataError

SIDE = 64


def picture(seed: int = 0, mode: str = "RGB", image_format: str = "PNG", **options: object) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (SIDE // 8, SIDE // 8, 3), np.uint8)
    image = Image.fromarray(np.kron(noise, np.ones((8, 8, 1), np.uint8))).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *, idat: bytes = b"", more: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", idat) + chunk(b"IEND", b"")


def bomb_of_text() -> bytes:
    """A small file whose compressed text chunk unpacks to 100 MB."""
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9))
    whole = picture()
    return whole[:33] + text + whole[33:]


def animated(image_format: str) -> bytes:
    frames = [Image.open(io.BytesIO(picture(seed))) for seed in (1, 2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, image_format, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


REFUSED: dict[str, tuple[bytes, set[Reason]]] = {
    "nothing.png": (b"", {Reason.EMPTY}),
    "bomb.png": (png_of(60_000, 60_000, idat=zlib.compress(bytes(1000))), {Reason.TOO_MANY_PIXELS}),
    "largest.png": (png_of(2**31 - 1, 2**31 - 1), {Reason.TOO_MANY_PIXELS}),
    "flat.png": (png_of(0, 0), {Reason.TOO_SMALL}),
    "more-pixels-than-data.png": (
        png_of(SIDE, SIDE, idat=zlib.compress(b"\0")),
        {Reason.CORRUPT, Reason.TRUNCATED},
    ),
    "cut.png": (picture()[:-40], {Reason.TRUNCATED}),
    "cut.jpg": (picture(image_format="JPEG")[:-200], {Reason.TRUNCATED}),
    "zip.png": (b"PK\x03\x04" + picture(), {Reason.NOT_AN_IMAGE}),
    "script.png": (b"#!/bin/sh\nexit\n" + picture(), {Reason.NOT_AN_IMAGE}),
    "page.png": (b"<svg onload='x()'/>", {Reason.NOT_AN_IMAGE}),
    "text-bomb.png": (bomb_of_text(), {Reason.CORRUPT, Reason.TOO_MANY_BYTES}),
    "moving.png": (animated("PNG"), {Reason.ANIMATED}),
    "moving.webp": (animated("WEBP"), {Reason.ANIMATED}),
    "gif.png": (animated("GIF"), {Reason.FORMAT_NOT_ALLOWED}),
    "tiff.png": (picture(image_format="TIFF"), {Reason.FORMAT_NOT_ALLOWED}),
}
TAKEN: dict[str, bytes] = {
    "polyglot.png": picture(10) + b"PK\x03\x04 and a whole archive",
    "cmyk.jpg": picture(11, mode="CMYK", image_format="JPEG"),
    "palette.png": picture(12, mode="P", transparency=0),
    "grey alpha.png": picture(13, mode="LA"),
    "broken profile.png": picture(14, icc_profile=b"\0" * 200),
    "profile of grey.jpg": picture(
        15, image_format="JPEG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    ),
    "broken exif.jpg": picture(16, image_format="JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "two\nlines, \u202e.png": picture(17),
    "%2e%2e%2fetc.png": picture(18),
    "-rf.png": picture(19),
}


def test_each_hostile_picture_is_quarantined_and_no_other(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, data in TAKEN.items():
        (raw / name).write_bytes(data)
    for name, (data, _) in REFUSED.items():
        (raw / name).write_bytes(data)
    (raw / "link.png").symlink_to("/etc/passwd")
    os.mkfifo(raw / "pipe.png")
    deep = Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 16)
    deep.save(raw / "deep.png")

    store = FolderStore(tmp_path / "store")
    result = ingest([FolderSource(raw, "benign")], store, name="d", limits=IngestLimits(max_near_bits=0))
    records = read_images(store, "d", result.dataset.digest)
    refused = {
        one.source.removeprefix("raw/"): one.reason
        for one in read_quarantine(store, "d", result.dataset.digest)
    }
    wrong = {
        name: refused.get(name) for name, (_, reasons) in REFUSED.items() if refused.get(name) not in reasons
    }
    assert wrong == {}
    assert {refused.pop("link.png"), refused.pop("pipe.png")} == {Reason.SYMLINK, Reason.NOT_A_FILE}
    assert refused.keys() == REFUSED.keys()
    assert len(records) == len(TAKEN) + 1
    for record in records:
        assert "\n" not in record.source
        assert b"archive" not in store.get(f"blobs/sha256/{record.sha256[:2]}/{record.sha256}")
    assert not any(".." in info.key.split("/") for info in store.list(""))


def tar_of(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def _claim_more(path: Path) -> None:
    """A member that says that it is 8 GB long."""
    data = bytearray(path.read_bytes())
    data[124:136] = b"77777777777\0"
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    path.write_bytes(bytes(data))


TARS: dict[str, Callable[[Path], object]] = {
    "not a tar": lambda path: path.write_bytes(b"no tar at all" * 100),
    "gzip": lambda path: path.write_bytes(zlib.compress(path.read_bytes())),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:700]),
    "a member longer than the file": _claim_more,
    "nothing": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", TARS)
def test_a_hostile_tar_costs_no_other_source(tmp_path: Path, damage: str) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    TARS[damage](tar_of(shards / "a.tar", ("1.png", picture(1)), ("1.txt", b"one"), ("2.png", picture(2))))
    tar_of(
        shards / "b.tar",
        ("3.png", picture(3)),
        ("../4.png", picture(4)),
        ("/etc/5.png", picture(5)),
        ("6.json", b"[" * 100_000),
        ("6.png", picture(6)),
    )
    store = FolderStore(tmp_path / "store")
    result = ingest(
        [WebDatasetSource(shards, "benign")], store, name="d", limits=IngestLimits(max_near_bits=0)
    )
    names = {one.source for one in read_images(store, "d", result.dataset.digest)}
    assert {"shards/b.tar/3.png", "shards/b.tar/6.png"} <= names
    quarantined = result.quarantined
    assert quarantined[str(Reason.OUTSIDE_SOURCE)] == 2
    assert sum(quarantined.values()) >= (2 if damage == "nothing" else 3), quarantined
    assert not (tmp_path / "4.png").exists()


PARQUETS: dict[str, Callable[[Path], object]] = {
    "text where pictures belong": lambda path: pq.write_table(pa.table({"image": ["a", "b"]}), path),
    "numbers as captions": lambda path: pq.write_table(
        pa.table({"image": [picture()], "caption": [1]}), path
    ),
    "no such column": lambda path: pq.write_table(pa.table({"other": [b"x"]}), path),
    "a list of pictures": lambda path: pq.write_table(pa.table({"image": [[picture()]]}), path),
}


@pytest.mark.parametrize("form", PARQUETS)
def test_parquet_of_a_wrong_form_is_refused_before_anything_is_read(tmp_path: Path, form: str) -> None:
    PARQUETS[form](tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"expected|no column"):
        list(
            ParquetSource(tmp_path, "benign", caption_column="caption" if "captions" in form else None).items(
                1000
            )
        )


@pytest.mark.parametrize("data", [b"PAR1", b"PAR1" + bytes(50) + b"PAR1", b"\0" * 4096])
def test_what_is_no_parquet_costs_no_other_shard(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    pq.write_table(pa.table({"image": [picture(1), None, b"no picture"]}), tmp_path / "b.parquet")
    store = FolderStore(tmp_path / "store")
    result = ingest([ParquetSource(tmp_path, "benign", label="p")], store, name="d", limits=IngestLimits())
    assert [one.source for one in read_images(store, "d", result.dataset.digest)] == ["p/b.parquet/0"]
    assert result.quarantined[str(Reason.BROKEN_SHARD)] == 1


@pytest.mark.parametrize(
    "table",
    [
        b"\xff\xfe\0",
        b'file_name,caption\n"never closed',
        b"file_name,caption\na,b\0c\n" + b"x" * 200_000,
        b"a,b\n1,2\n",
        b"",
        b"file_name,caption\n" + b'"' + b"y" * 200_000 + b'",z\n',
    ],
)
def test_tables_of_captions_of_every_wrong_shape_are_refused(table: bytes) -> None:
    try:
        captions = parse_captions(table, "captions.csv")
    except DataError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017  (some shapes are harmless)
    else:
        assert all("\0" not in text and len(text) < 10_000 for text in captions.values())


TOMLS = [
    "",
    "= 1",
    "schema_version = 2",
    "a = " + "[" * 50_000,
    "a = {" * 5_000,
    "seed = 9" + "9" * 5_000,
    'model = "../x"',
    "model = 'a\\nb'",
    "\x00",
    "[ingest]\nsources = 3",
    "[store]\nkind = 'ftp'",
    "workspace = 1979-05-27",
]


@pytest.mark.parametrize("text", TOMLS, ids=range(len(TOMLS)))
def test_configurations_of_every_wrong_shape_are_one_clear_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 2000


def test_limits_hold_for_what_they_are_given() -> None:
    assert DecodeLimits().max_pixels < 60_000**2
