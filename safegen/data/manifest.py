"""Manifests: Parquet files with fixed columns, each under the digest of its own rows."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from safegen.domain.dataset import (
    DatasetVersion,
    ImageRecord,
    QuarantineRecord,
    Reason,
    TripletRecord,
    image_dataset,
    rows_digest,
    sorted_records,
)
from safegen.errors import DataError, PreconditionFailedError
from safegen.ports import ObjectStore

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_ARROW = {int: pa.int64(), bool: pa.bool_()}


def _schema(record: type[ImageRecord | QuarantineRecord | TripletRecord]) -> pa.Schema:
    hints = get_type_hints(record)
    return pa.schema(
        [pa.field(name, _ARROW.get(kind, pa.string()), nullable=False) for name, kind in hints.items()]
    )


IMAGE_SCHEMA = _schema(ImageRecord)
QUARANTINE_SCHEMA = _schema(QuarantineRecord)
TRIPLET_SCHEMA = _schema(TripletRecord)


def check_name(name: str) -> str:
    """Return a dataset's name if it may be part of a key.

    Raises:
        DataError: It may not.
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            f"dataset name {name!r} is not usable; expected lower-case letters, digits, '.', '_' and '-'"
        )
    return name


def manifest_key(name: str, digest: str) -> str:
    """Return the key of a version's manifest."""
    return f"datasets/{name}/{digest}/manifest.parquet"


def quarantine_key(name: str, digest: str) -> str:
    """Return the key of the list of what was refused when a version was made."""
    return f"datasets/{name}/{digest}/quarantine.parquet"


def write_images(
    store: ObjectStore, name: str, records: Iterable[ImageRecord], quarantined: Iterable[QuarantineRecord]
) -> DatasetVersion:
    """Store a version of a dataset: its quarantine first, its manifest last, so that a manifest is never alone.

    Returns:
        The version. Writing the same records again changes nothing but the quarantine.

    Raises:
        DataError: The name is not usable.
        StorageError: The store failed.
    """
    ordered = sorted_records(records)
    version = image_dataset(check_name(name), ordered)
    _write(store, version, to_parquet(ordered, IMAGE_SCHEMA), quarantined)
    return version


def write_triplets(
    store: ObjectStore, name: str, records: Sequence[TripletRecord], quarantined: Iterable[QuarantineRecord]
) -> DatasetVersion:
    """Store a version of a set of triplets; as `write_images`."""
    ordered = sorted(records, key=lambda record: record.unsafe_sha)
    version = DatasetVersion(check_name(name), rows_digest(ordered), {"triplets": len(ordered)})
    _write(store, version, to_parquet(ordered, TRIPLET_SCHEMA), quarantined)
    return version


def read_images(store: ObjectStore, name: str, digest: str) -> list[ImageRecord]:
    """Return a version's images.

    Raises:
        ObjectNotFoundError: There is no such version.
        DataError: Its rows are not those that the digest stands for.
    """
    table = _read(store, manifest_key(name, digest), IMAGE_SCHEMA)
    records = [ImageRecord(**row) for row in table.to_pylist()]
    _check_digest(rows_digest(records), name, digest)
    return records


def read_triplets(store: ObjectStore, name: str, digest: str) -> list[TripletRecord]:
    """Return a version's triplets; as `read_images`."""
    table = _read(store, manifest_key(name, digest), TRIPLET_SCHEMA)
    records = [TripletRecord(**row) for row in table.to_pylist()]
    _check_digest(rows_digest(records), name, digest)
    return records


def read_quarantine(store: ObjectStore, name: str, digest: str) -> list[QuarantineRecord]:
    """Return what was refused when a version was made.

    Raises:
        ObjectNotFoundError: There is no such version.
        DataError: It is not a quarantine file.
    """
    rows = _read(store, quarantine_key(name, digest), QUARANTINE_SCHEMA).to_pylist()
    return [QuarantineRecord(**{**row, "reason": Reason(row["reason"])}) for row in rows]


def to_parquet(
    records: Sequence[ImageRecord] | Sequence[QuarantineRecord] | Sequence[TripletRecord], schema: pa.Schema
) -> bytes:
    """Return the records as a Parquet file with exactly the columns of `schema`."""
    columns = [
        pa.array([getattr(record, field.name) for record in records], type=field.type) for field in schema
    ]
    table = pa.Table.from_arrays(columns, schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _write(
    store: ObjectStore, version: DatasetVersion, manifest: bytes, quarantined: Iterable[QuarantineRecord]
) -> None:
    refused = sorted(quarantined, key=lambda record: (record.role, record.source, record.reason))
    store.put(quarantine_key(version.name, version.digest), to_parquet(refused, QUARANTINE_SCHEMA))
    try:
        store.put(manifest_key(version.name, version.digest), manifest, if_absent=True)
    except PreconditionFailedError:
        return  # the same rows are there already, perhaps written by another version of the Parquet library


def _read(store: ObjectStore, key: str, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.read_table(io.BytesIO(store.get(key)))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{key} in {store.uri} is no Parquet file: {error}; ingest again") from error
    if not table.schema.equals(schema):
        raise DataError(f"{key} in {store.uri} has columns {table.schema.names}; expected {schema.names}")
    return table


def _check_digest(found: str, name: str, digest: str) -> None:
    if found != digest:
        raise DataError(
            f"manifest of dataset {name} has digest {found}; expected {digest}: it was changed or damaged"
        )
