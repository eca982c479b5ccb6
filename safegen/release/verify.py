"""Prove a release: a trusted key signed exactly these files, and among them is a pass for this very checkpoint.

The same checks judge a pulled folder, a release in a store, and a release's documents before anything else is fetched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from safegen.blobs import get_blob
from safegen.domain.digests import sha256_bytes, tree_digests
from safegen.domain.release import (
    DECISION,
    MANIFEST,
    SIGNATURE,
    ReleaseFile,
    ReleaseManifest,
    SignedFiles,
)
from safegen.errors import DamagedObjectError, DataError, ObjectNotFoundError, ReleaseRefusedError
from safegen.ports import ObjectStore, Verifier
from safegen.release.catalogue import passed_decision
from safegen.release.layout import release_key

_SHOWN = 3


@dataclass(frozen=True)
class Evidence:
    """What was found of a release.

    Attributes:
        digests: SHA-256 of every file found, by path, the signature apart.
        manifest: Content of `manifest.json`, None where it is missing.
        decision: Content of `decision.json`, None where it is missing.
        signature: Content of `signature.json`, None where it is missing.
        damage: What could not even be read, in one line.
    """

    digests: Mapping[str, str]
    manifest: bytes | None
    decision: bytes | None
    signature: bytes | None
    damage: str | None = None


@dataclass(frozen=True)
class ReleaseCheck:
    """One check and how it came out.

    Attributes:
        name: "signature", "files", "digests", "manifest" or "decision".
        passed: Whether it holds.
        reason: Why, in one line, passed or not.
    """

    name: str
    passed: bool
    reason: str


@dataclass(frozen=True)
class Verification:
    """All checks of a release.

    Attributes:
        release: Which it says it is, such as `miniature@3`; None where no trusted signature says so.
        checks: In the order made. Those after a failed signature are not made: there is nothing to hold them to.
    """

    release: str | None
    checks: tuple[ReleaseCheck, ...]

    @property
    def valid(self) -> bool:
        """Whether the release may be used."""
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it may not: "name: reason" of every failed check."""
        return tuple(f"{check.name}: {check.reason}" for check in self.checks if not check.passed)


def verify_folder(folder: Path, verifier: Verifier) -> Verification:
    """Prove a pulled folder; needs no network.

    Args:
        folder: As `safegen pull` wrote it.
        verifier: Which keys are trusted.

    Raises:
        DataError: There is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"cannot verify {folder}: no such folder; give one that was pulled, or an s3:// URI")
    return check_evidence(_folder_evidence(folder), verifier)


def verify_stored(store: ObjectStore, model: str, version: str, verifier: Verifier) -> Verification:
    """Prove a release where it is stored, reading every byte of it.

    Raises:
        ObjectNotFoundError: There is no such release.
        StorageError: The store failed.
    """
    documents = stored_documents(store, model, version)
    checked = check_evidence(documents, verifier)
    if not checked.valid or documents.manifest is None:
        return checked
    manifest = ReleaseManifest.model_validate_json(documents.manifest)
    digests, damage = dict(documents.digests), None
    for file in (*manifest.files, *manifest.documents):
        try:
            digests[file.path] = _stored_digest(store, file)
        except ObjectNotFoundError:
            del digests[file.path]
        except DamagedObjectError as error:
            damage = damage or f"{file.path}: {error}"
    found = Evidence(digests, documents.manifest, documents.decision, documents.signature, damage)
    return _of_release(check_evidence(found, verifier), f"{model}@{version}")


def require_signed(store: ObjectStore, manifest: ReleaseManifest, verifier: Verifier) -> None:
    """Refuse a release whose signature, manifest or decision does not hold; looks at no file of the checkpoint.

    Raises:
        ReleaseRefusedError: Says which check failed, and why.
        StorageError: The store failed.
    """
    require_valid(
        check_evidence(stored_documents(store, manifest.model, manifest.version), verifier), manifest.name
    )


def require_valid(verification: Verification, name: str) -> None:
    """Refuse what did not pass, or is another release than the one meant.

    Args:
        verification: How its checks came out.
        name: Which release it must be, such as `miniature@3`.

    Raises:
        ReleaseRefusedError: Says which check failed, and why.
    """
    checked = _of_release(verification, name)
    if not checked.valid:
        raise ReleaseRefusedError(f"refused {name}: {'; '.join(checked.reasons)}")


def stored_documents(store: ObjectStore, model: str, version: str) -> Evidence:
    """Return a stored release's documents, its other files taken to be what its manifest says.

    Raises:
        ObjectNotFoundError: There is no such release.
        StorageError: The store failed.
    """
    data = store.get(release_key(model, version, MANIFEST))
    decision, signature = (_get(store, release_key(model, version, name)) for name in (DECISION, SIGNATURE))
    try:
        digests = dict(ReleaseManifest.model_validate_json(data).signed_digests)
    except ValidationError:
        digests = {}
    digests[MANIFEST] = sha256_bytes(data)
    digests.pop(DECISION, None)
    if decision is not None:
        digests[DECISION] = sha256_bytes(decision)
    return Evidence(digests, data, decision, signature)


def check_evidence(found: Evidence, verifier: Verifier) -> Verification:
    """Judge what was found of a release."""
    if found.signature is None:
        missing = f"{SIGNATURE} is missing; an unsigned release is never used"
        return Verification(None, (ReleaseCheck("signature", passed=False, reason=missing),))
    try:
        signed = verifier.verify(found.signature)
    except ReleaseRefusedError as error:
        return Verification(None, (ReleaseCheck("signature", passed=False, reason=str(error)),))
    by = f"{len(signed.digests)} files of {signed.subject} are signed by key {signed.key_id[:12]}"
    checks = (
        ReleaseCheck("signature", passed=True, reason=by),
        _check_files(found, signed),
        _check_digests(found, signed),
        _check_manifest(found, signed),
        _check_decision(found),
    )
    return Verification(signed.subject, checks)


def _check_files(found: Evidence, signed: SignedFiles) -> ReleaseCheck:
    missing, extra = (
        signed.digests.keys() - found.digests.keys(),
        found.digests.keys() - signed.digests.keys(),
    )
    problems = [found.damage] if found.damage else []
    problems += [f"missing {_listed(missing)}"] if missing else []
    problems += [f"not signed {_listed(extra)}"] if extra else []
    if problems:
        return ReleaseCheck("files", passed=False, reason="; ".join(problems))
    return ReleaseCheck("files", passed=True, reason="all are there, and no other")


def _check_digests(found: Evidence, signed: SignedFiles) -> ReleaseCheck:
    changed = {path for path, digest in signed.digests.items() if found.digests.get(path, digest) != digest}
    if changed:
        return ReleaseCheck(
            "digests", passed=False, reason=f"other content than signed in {_listed(changed)}"
        )
    return ReleaseCheck("digests", passed=True, reason="every SHA-256 is the one signed")


def _check_manifest(found: Evidence, signed: SignedFiles) -> ReleaseCheck:
    try:
        manifest = ReleaseManifest.model_validate_json(found.manifest or b"")
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]["msg"]
        return ReleaseCheck("manifest", passed=False, reason=f"{MANIFEST} is no manifest ({problem})")
    if manifest.name != signed.subject:
        reason = f"it is of {manifest.name}, the signature of {signed.subject}"
        return ReleaseCheck("manifest", passed=False, reason=reason)
    if manifest.signed_digests != dict(signed.digests):
        reason = "its files are not those signed, or it is not in canonical form"
        return ReleaseCheck("manifest", passed=False, reason=reason)
    return ReleaseCheck(
        "manifest", passed=True, reason=f"it is that of {manifest.name}, and lists what is signed"
    )


def _check_decision(found: Evidence) -> ReleaseCheck:
    if found.decision is None or found.manifest is None:
        return ReleaseCheck("decision", passed=False, reason=f"{DECISION} or {MANIFEST} is missing")
    try:
        manifest = ReleaseManifest.model_validate_json(found.manifest)
        passed_decision(found.decision, manifest.checkpoint_digest)
    except ValidationError:
        return ReleaseCheck("decision", passed=False, reason=f"{MANIFEST} names no checkpoint to hold it to")
    except DataError as error:
        return ReleaseCheck("decision", passed=False, reason=str(error))
    reason = f"a pass for checkpoint {manifest.checkpoint_digest[:12]}"
    return ReleaseCheck("decision", passed=True, reason=reason)


def _of_release(checked: Verification, name: str) -> Verification:
    """Add that it is another release than the one meant: an old one that was put in a new one's place."""
    if checked.release is None or checked.release == name:
        return checked
    reason = f"this is {checked.release}, expected {name}; somebody has put it in the other's place"
    return Verification(
        checked.release, (*checked.checks, ReleaseCheck("release", passed=False, reason=reason))
    )


def _folder_evidence(folder: Path) -> Evidence:
    try:
        digests, damage = tree_digests(folder), None
    except DataError as error:  # a symbolic link, a socket, a file that cannot be read
        digests, damage = dict[str, str](), str(error)
    digests.pop(SIGNATURE, None)
    return Evidence(
        digests,
        manifest=_read(folder / MANIFEST),
        decision=_read(folder / DECISION),
        signature=_read(folder / SIGNATURE),
        damage=damage,
    )


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() and not path.is_symlink() else None


def _get(store: ObjectStore, key: str) -> bytes | None:
    try:
        return store.get(key)
    except ObjectNotFoundError:
        return None


def _stored_digest(store: ObjectStore, file: ReleaseFile) -> str:
    digest = hashlib.sha256()
    for chunk in file.chunks:
        digest.update(get_blob(store, chunk.digest))
    return digest.hexdigest()


def _listed(paths: set[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(sorted(paths)[:_SHOWN]) + more
