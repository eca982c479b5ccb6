"""Stage 1: images from the sources become a dataset version."""

from __future__ import annotations

import hashlib

from safegen.bootstrap import Platform
from safegen.data.decode import DecodeLimits
from safegen.data.ingest import IngestLimits, ingest
from safegen.pipeline.outcomes import Ingested
from safegen.progress import progress_bar


def sources_fingerprint(platform: Platform) -> str:
    """Return a digest that changes whenever a source may offer something else; no picture is read.

    Raises:
        DataError: A source is missing.
    """
    digest = hashlib.sha256()
    for source in platform.sources():
        digest.update(f"{source.role}\n{source.label}\n".encode())
        for item in source.items(platform.config.ingest.max_bytes):
            digest.update(f"{item.name}\t{item.fingerprint}\t{item.caption}\n".encode())
    return digest.hexdigest()


def run_ingest(platform: Platform) -> Ingested:
    """Take in what the sources hold; see `safegen.data.ingest.ingest`."""
    section = platform.config.ingest
    limits = IngestLimits(
        decode=DecodeLimits(max_bytes=section.max_bytes, max_pixels=section.max_pixels),
        max_near_bits=section.max_near_bits,
        held_out_rate=section.held_out_rate,
    )
    with progress_bar("ingest", "images") as progress:
        result = ingest(
            platform.sources(),
            platform.trainer_store,
            name=section.name,
            limits=limits,
            workers=section.workers,
            progress=progress,
        )
    return Ingested(
        dataset=result.dataset.name,
        digest=result.dataset.digest,
        counts=dict(result.dataset.counts),
        quarantined=dict(result.quarantined),
        offered=result.offered,
        manifest_uri=result.manifest_uri,
        quarantine_uri=result.quarantine_uri,
    )
