"""Stage 6: the policy decides on the report; the decision is written whether it passes or blocks."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from safegen import __version__
from safegen.bootstrap import Platform
from safegen.domain.decision import Decision
from safegen.domain.digests import digest_json, sha256_file
from safegen.domain.gate_files import decide_from_files
from safegen.errors import ObjectNotFoundError
from safegen.pipeline.comparison import log_comparison
from safegen.pipeline.outcomes import Decided, Edited, Evaluated
from safegen.release.catalogue import read_manifest
from safegen.release.channel import read_channel
from safegen.shipped import locate

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


def champion_report(platform: Platform, candidate_digest: str) -> Path | None:
    """Fetch the report of the release that the channel points to, to compare the candidate with.

    A channel that already points to the candidate itself has no other champion than the one it replaced.

    Returns:
        A file with the report; None where nothing was released before.
    """
    config, store = platform.config, platform.promoter_store
    channel = read_channel(store, config.model, config.promote.channel)
    version = channel.version if channel else None
    while version is not None:
        manifest = read_manifest(store, config.model, version)
        if manifest.checkpoint_digest != candidate_digest:
            return _fetch_report(platform, manifest.metadata.get("report_blob", ""))
        version = manifest.metadata.get("champion_version") or None
    return None


def champion_version(platform: Platform, candidate_digest: str) -> str:
    """Return the version that the candidate was compared with; empty for none."""
    config = platform.config
    channel = read_channel(platform.promoter_store, config.model, config.promote.channel)
    if channel is None:
        return ""
    manifest = read_manifest(platform.promoter_store, config.model, channel.version)
    if manifest.checkpoint_digest == candidate_digest:
        return manifest.metadata.get("champion_version", "")
    return channel.version


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
