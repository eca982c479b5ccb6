"""Small checkpoints, decisions and signatures that tests of releases share."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from safegen.adapters.memory_kms import MemoryKmsKey
from safegen.adapters.signing import ModelSigner, ModelVerifier
from safegen.domain.decision import CheckOutcome, Decision
from safegen.domain.digests import tree_digest
from safegen.ports import ObjectStore, Verifier
from safegen.release.catalogue import Release
from safegen.release.channel import move_channel, rollback
from safegen.release.publish import Papers, Provenance, publish
from safegen.release.pull import pull

MODEL = "miniature"
BY = Provenance(who="ci", why="passed the gate", metadata={"base": "miniature"})
PAPERS = Papers(sbom=b'{"bomFormat": "CycloneDX"}', model_card=b"# miniature\n")
KEY = MemoryKmsKey()
SIGNER, VERIFIER = ModelSigner(KEY), ModelVerifier([KEY.public_key_pem])


def make_checkpoint(folder: Path, attn1: float = 0.0) -> Path:
    """A checkpoint with a large tensor, many small ones, both attentions, and a nested text file."""
    tensors = {"down.conv.weight": np.arange(400_000, dtype=np.float32)}
    for block in range(8):
        for kind, fill in (("attn1", attn1), ("attn2", 2.0)):
            for name in ("to_k", "to_q", "to_v"):
                tensors[f"blocks.{block}.{kind}.{name}.weight"] = np.full(
                    10_000, fill + block, dtype=np.float32
                )
    (folder / "unet").mkdir(parents=True)
    save_file(tensors, folder / "unet" / "model.safetensors", metadata={"format": "np"})
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (folder / "unet" / "empty.txt").touch()
    return folder


def decide(checkpoint: Path, **changes: object) -> bytes:
    return json.dumps({"outcome": "pass", "checkpoint_sha256": tree_digest(checkpoint)} | changes).encode()


def full_decision(checkpoint: Path) -> Decision:
    check = CheckOutcome(
        name="explicit/nrr >= 0.9 (low)", kind="policy", passed=True, reason="low 0.95 is >= 0.9", n=120
    )
    return Decision(
        outcome="pass",
        model=MODEL,
        checks=(check,),
        checkpoint_sha256=tree_digest(checkpoint),
        report_sha256="1" * 64,
        results_sha256="2" * 64,
        policy_sha256="3" * 64,
        policy_name="miniature",
        versions={"safegen": "0.1.0"},
        decided_utc=datetime(2026, 11, 25, tzinfo=UTC),
    )


def released(
    store: ObjectStore,
    checkpoint: Path,
    decision: bytes | None = None,
    *,
    model: str = MODEL,
    signer: ModelSigner = SIGNER,
    verifier: Verifier = VERIFIER,
    provenance: Provenance = BY,
) -> Release:
    return publish(
        store,
        model,
        checkpoint,
        decide(checkpoint) if decision is None else decision,
        papers=PAPERS,
        signer=signer,
        verifier=verifier,
        provenance=provenance,
    )


def pulled(store: ObjectStore, ref: str, folder: Path, verifier: Verifier = VERIFIER) -> Release:
    return pull(store, MODEL, ref, folder, verifier=verifier)


def moved(store: ObjectStore, channel: str, version: str, *, who: str = "ci", why: str = "pass"):
    return move_channel(store, MODEL, channel, version, verifier=VERIFIER, who=who, why=why)


def rolled_back(store: ObjectStore, version: str, *, who: str = "bob", why: str = "complaints"):
    return rollback(store, MODEL, "production", version, verifier=VERIFIER, who=who, why=why)
