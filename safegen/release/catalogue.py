"""Find releases, and read their manifests back with the checks that need no key."""

from __future__ import annotations

import re
from dataclasses import dataclass

from safegen.domain.digests import sha256_bytes
from safegen.domain.release import MANIFEST, ReleaseManifest, check_name
from safegen.errors import DataError, ObjectNotFoundError, StorageError
from safegen.ports import ObjectStore
from safegen.release.layout import json_object, parse_record, release_key

_MANIFEST = f"/{MANIFEST}"
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Release:
    """A published release.

    Attributes:
        model: Name of the model.
        version: A positive integer as text.
        uri: Where its manifest lies.
        digest: SHA-256 of the manifest, which covers every byte of the checkpoint and the decision.
    """

    model: str
    version: str
    uri: str
    digest: str


def release_of(store: ObjectStore, manifest: ReleaseManifest) -> Release:
    """Return the release that a manifest in this store stands for."""
    key = release_key(manifest.model, manifest.version, MANIFEST)
    return Release(manifest.model, manifest.version, f"{store.uri}/{key}", manifest.digest)


def list_releases(store: ObjectStore, model: str) -> tuple[ReleaseManifest, ...]:
    """Return the manifests of a model's releases, oldest version first.

    Raises:
        StorageError: The store failed, or holds a damaged manifest.
    """
    return tuple(read_manifest(store, model, str(version)) for version in sorted(_versions(store, model)))


def next_version(store: ObjectStore, model: str) -> int:
    """Return the number after the highest released version."""
    return max(_versions(store, model), default=0) + 1


def read_manifest(store: ObjectStore, model: str, version: str) -> ReleaseManifest:
    """Return a release's manifest.

    Raises:
        ObjectNotFoundError: There is no such release.
        StorageError: The manifest is damaged or belongs to another release.
    """
    key = release_key(model, version, MANIFEST)
    try:
        data = store.get(key)
    except ObjectNotFoundError as error:
        raise ObjectNotFoundError(
            f"{store.uri} has no release {model}@{version}; see which there are: safegen releases {model}"
        ) from error
    manifest = parse_record(data, f"{store.uri}/{key}", ReleaseManifest)
    if (manifest.model, manifest.version) != (model, version):
        raise StorageError(
            f"{store.uri}/{key} is the manifest of {manifest.model}@{manifest.version}, expected {model}@{version}; "
            "do not use it, and find out who wrote it"
        )
    if sha256_bytes(data) != manifest.digest:
        raise StorageError(
            f"{store.uri}/{key} is not in canonical form, so its digest does not hold; do not use it"
        )
    return manifest


def passed_decision(data: bytes, checkpoint_digest: str) -> dict[str, object]:
    """Return a decision once it is proven to be a pass for this checkpoint.

    Raises:
        DataError: It is no JSON object, not a pass, or about another checkpoint.
    """
    decision = json_object(data, "the decision")
    if decision.get("outcome") != "pass":
        raise DataError(
            f"the decision's outcome is {decision.get('outcome')!r}, expected 'pass'; only a checkpoint that passed "
            "the gate can be released"
        )
    if decision.get("checkpoint_sha256") != checkpoint_digest:
        raise DataError(
            f"the decision is about checkpoint {decision.get('checkpoint_sha256')!r}, expected {checkpoint_digest}; "
            "run the gate on this checkpoint"
        )
    return decision


def _versions(store: ObjectStore, model: str) -> list[int]:
    prefix = f"releases/{check_name(model, 'model')}/"
    names = (info.key.removeprefix(prefix) for info in store.list(prefix))
    versions = (name.removesuffix(_MANIFEST) for name in names if name.endswith(_MANIFEST))
    return [int(version) for version in versions if _VERSION.fullmatch(version)]
