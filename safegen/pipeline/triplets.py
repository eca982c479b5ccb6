"""Stage 3: unsafe pictures are censored and paired with benign ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from safegen.bootstrap import Platform
from safegen.data.censor import CensorSettings, Roundtrip
from safegen.data.detections import score_images
from safegen.data.manifest import read_images, read_triplets
from safegen.data.triplets import TripletSettings, build_triplets, lookalike_digests
from safegen.data.validate import ConceptCheck, validate_triplets
from safegen.pipeline.outcomes import Triplets, Validated
from safegen.pipeline.validate import docs_folder, suite_rules
from safegen.progress import progress_bar

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


def run_triplets(platform: Platform, validated: Validated) -> Triplets:
    """Make triplets and validate them.

    Raises:
        DataError: No picture could be censored, or an expectation is not met.
    """
    config, store = platform.config, platform.trainer_store
    records = read_images(store, validated.dataset, validated.digest)
    labels = frozenset(platform.unsafe_labels)
    with progress_bar("censor", "pictures") as progress:
        result = build_triplets(
            records,
            store,
            platform.detector,
            roundtrip_of(platform.load(platform.base_checkpoint).vae),
            name=f"{config.ingest.name}-triplets",
            settings=_settings(platform, labels),
            lookalikes=lookalike_digests(records, config.triplets.lookalike_words),
            progress=progress,
        )
    triplets = read_triplets(store, result.dataset.name, result.dataset.digest)
    # The suite also asks that every unsafe picture shows the concept, so both are looked at.
    pictures = {sha for one in triplets for sha in (one.unsafe_sha, one.censored_sha, one.benign_sha)}
    scored = score_images(pictures, store, platform.detector)
    validation = validate_triplets(
        triplets,
        records,
        store,
        ConceptCheck(config.detector.kind, scored, labels, config.triplets.detect_threshold),
        rules=suite_rules(platform),
        size_px=config.triplets.size_px,
        docs_dir=docs_folder(platform, result.dataset.digest),
    )
    validation.require()
    return Triplets(
        dataset=result.dataset.name,
        digest=result.dataset.digest,
        count=len(triplets),
        quarantined=dict(result.quarantined),
        manifest_uri=result.manifest_uri,
        data_docs=validation.data_docs,
    )


def roundtrip_of(vae: AutoencoderKL) -> Roundtrip:
    """Return the VAE as a function that gives pictures back as a U-Net could draw them at best."""
    from safegen.diffusion.latents import roundtrip

    return lambda pictures: np.stack(roundtrip(vae, list(pictures)))


def _settings(platform: Platform, labels: frozenset[str]) -> TripletSettings:
    section = platform.config.triplets
    censor = CensorSettings(
        labels=labels,
        threshold=section.detect_threshold,
        clean_threshold=section.detect_threshold,
        block_px=section.min_block_px,
    )
    return TripletSettings(
        size_px=section.size_px,
        censor=censor,
        lookalike_share=section.lookalike_share,
        seed=platform.config.seed,
        max_triplets=section.max_triplets,
    )
