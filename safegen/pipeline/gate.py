"""Stage 6: the policy decides on the report; the decision is written whether it passes or blocks."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from safegen import __version__
from safegen.bootstrap import Platform
from safegen.domain.decision import Decision
from safegen.domain.digests import digest_json, sha256_file
from safegen.domain.gate_files import decide_from_files, read_decision
from safegen.domain.release import ReleaseManifest
from safegen.errors import DataError, ObjectNotFoundError, ReleaseRefusedError, StorageError
from safegen.pipeline.comparison import log_comparison
from safegen.pipeline.outcomes import Decided, Edited, Evaluated
from safegen.release.audit import last_move
from safegen.release.catalogue import read_manifest
from safegen.release.channel import read_channel
from safegen.release.pull import resolve
from safegen.release.verify import require_signed
from safegen.shipped import locate

_logger = logging.getLogger(__name__)
_VERSIONED = ("torch", "diffusers", "transformers", "onnxruntime", "numpy")


def run_gate(platform: Platform, edited: Edited, evaluated: Evaluated, champion: Path | None) -> Decided:
    """Decide on a candidate, and record it beside the champion where there is one."""
    decision = decide_from_files(
        evaluated.report,
        edited.checkpoint,
        locate(platform.config.gate.policy),
        champion,
        now=datetime.now(UTC),
        versions=versions(),
    )
    path = evaluated.report.parent / f"decision-{gate_key(platform, evaluated, champion)[:16]}.json"
    write_decision(decision, path)
    if champion is not None:
        log_comparison(platform, edited, evaluated, champion)
    return Decided(decision=path, passed=decision.passed, reasons=tuple(decision.reasons))


def gate_key(platform: Platform, evaluated: Evaluated, champion: Path | None) -> str:
    """Return a digest of all that a decision depends on, the time apart."""
    return digest_json(
        {
            "report": evaluated.report_digest,
            "policy": sha256_file(locate(platform.config.gate.policy)),
            "champion": sha256_file(champion) if champion else None,
        }
    )


def require_current(
    platform: Platform, edited: Edited, evaluated: Evaluated, decided: Decided, champion: Path | None
) -> None:
    """Refuse a decision that the gate would not make now: one edited by hand, or made under another policy.

    Raises:
        DataError: It is another decision than the evidence gives, its time and the versions that decided apart.
    """
    kept = read_decision(decided.decision)
    now = decide_from_files(
        evaluated.report,
        edited.checkpoint,
        locate(platform.config.gate.policy),
        champion,
        now=datetime.now(UTC),
        versions=kept.versions,
    )
    same = now.model_copy(update={"decided_utc": kept.decided_utc})
    if same != kept or kept.passed != decided.passed:
        raise DataError(
            f"decision {decided.decision} says {kept.outcome}, but it is not what the gate decides on this evidence "
            f"({now.outcome}); delete the file and run again"
        )


def champion_report(platform: Platform, candidate_digest: str) -> Path | None:
    """Fetch the report of the release that the channel points to, to compare the candidate with.

    A channel that already points to the candidate itself has no other champion than the one it replaced, if that can
    still be proven: after a change of keys it need not be. Any other release that is served must be provable.

    Returns:
        A file with the report; None where nothing was released before.

    Raises:
        ReleaseRefusedError: The champion is unsigned, altered, or not one that passed.
        StorageError: The channel's pointer is an old one put back, or the store failed.
    """
    manifest = _served(platform)
    if manifest is None:
        return None
    if manifest.checkpoint_digest != candidate_digest:
        return _proven_report(platform, manifest)
    while manifest.checkpoint_digest == candidate_digest:
        version = manifest.metadata.get("champion_version")
        if not version:
            return None
        manifest = read_manifest(platform.promoter_store, platform.config.model, version)
    try:
        return _proven_report(platform, manifest)
    except ReleaseRefusedError as error:
        _logger.warning("%s; the candidate is served already, and is compared with nothing", error)
        return None


def _served(platform: Platform) -> ReleaseManifest | None:
    """Return the manifest of the release that the run's channel points to, None for a new channel."""
    config, store = platform.config, platform.promoter_store
    if read_channel(store, config.model, config.promote.channel) is None:
        if entry := last_move(store, config.model, config.promote.channel):
            raise StorageError(
                f"channel {config.model}@{config.promote.channel} is gone, but was moved to version {entry.version} at "
                f"{entry.utc}; find out who deleted it: safegen rollback {config.model} --to {entry.version}"
            )
        return None
    return resolve(store, config.model, config.promote.channel)


def _proven_report(platform: Platform, manifest: ReleaseManifest) -> Path:
    """Fetch the report that a release was decided on, once its signature and decision are proven."""
    require_signed(platform.promoter_store, manifest, platform.verifier)
    return _fetch_report(platform, manifest.metadata.get("report_blob", ""))


def champion_version(platform: Platform, candidate_digest: str) -> str:
    """Return the version that the candidate was compared with; empty for none."""
    manifest = _served(platform)
    if manifest is None:
        return ""
    if manifest.checkpoint_digest == candidate_digest:
        return manifest.metadata.get("champion_version", "")
    return manifest.version


def _fetch_report(platform: Platform, digest: str) -> Path:
    from safegen.blobs import download_blob

    if not digest:
        raise ObjectNotFoundError(
            f"the released champion of {platform.config.model} names no report to compare with; promote it again"
        )
    path = platform.workspace / "champions" / f"{digest}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    download_blob(platform.promoter_store, digest, path)
    return path


def write_decision(decision: Decision, path: Path) -> None:
    """Write a decision as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(decision.model_dump_json(indent=2) + "\n")


def versions() -> dict[str, str]:
    """Return the versions of what evaluates and decides."""
    return {"safegen": __version__, **{name: metadata.version(name) for name in _VERSIONED}}
