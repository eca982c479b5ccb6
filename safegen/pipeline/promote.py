"""Stage 7: a candidate that passed becomes a version in the registry, a release, and what the channel points to."""

from __future__ import annotations

import getpass
import json

from safegen.adapters.candidate_tags import CHECKPOINT_DIGEST, SIGNED_DECISION
from safegen.adapters.decision_signature import sign_decision
from safegen.adapters.signing import ModelSigner
from safegen.blobs import put_blob
from safegen.bootstrap import Platform
from safegen.domain.decision import Decision
from safegen.domain.digests import tree_digests
from safegen.domain.gate_files import read_report
from safegen.pipeline.approve import is_approval_due, verify_approval
from safegen.pipeline.gate import champion_version
from safegen.pipeline.outcomes import Decided, Edited, Evaluated, Promoted
from safegen.release.channel import move_channel, read_channel
from safegen.release.facts import ReleaseFacts
from safegen.release.model_card import model_card
from safegen.release.publish import Papers, Provenance, publish
from safegen.release.sbom import ml_bom
from safegen.release.version_page import PageLinks, version_page
from safegen.release_keys import public_key_file

CANDIDATE_ALIAS, CHAMPION_ALIAS = "candidate", "champion"


def register(platform: Platform, edited: Edited, evaluated: Evaluated, decided: Decided) -> str:
    """Make the candidate a version of the registered model, passed or not, and return the version.

    A pass is signed: the registry's server moves the champion for nothing less.
    """
    config = platform.config
    facts = release_facts(platform, edited, evaluated, decided)
    decision = facts.decision
    proof = (
        {SIGNED_DECISION: sign_decision(decision, platform.signing_key).to_json()} if decision.passed else {}
    )
    version = platform.registry.register_candidate(
        config.model,
        edited.model_id,
        tags={
            CHECKPOINT_DIGEST: edited.checkpoint_digest,
            "base_digest": edited.base_digest,
            "decision": decision.outcome,
            "report_digest": decision.report_sha256 or "",
            **proof,
        },
        description=version_page(
            facts,
            PageLinks(
                edit_run=edited.run_id,
                edit_url=edited.run_url,
                evaluation_run=evaluated.run_id,
                evaluation_url=evaluated.run_url,
                channel=config.promote.channel,
            ),
        ),
    )
    platform.registry.set_alias(config.model, CANDIDATE_ALIAS, version)
    return version


def run_promote(
    platform: Platform,
    edited: Edited,
    evaluated: Evaluated,
    decided: Decided,
    signed_approval: str | None = None,
) -> Promoted:
    """Publish, move the channel, move the alias: in this order, each step repeatable.

    A run that is killed in between leaves the old release in place, and the next run completes it.

    Args:
        platform: Where, and who must approve.
        edited: The candidate.
        evaluated: Its evaluation.
        decided: The decision on it.
        signed_approval: What `safegen approve` printed; kept in the release and named in the audit log.

    Raises:
        DataError: The decision is not a pass for this checkpoint, or the approval does not fit it.
        ReleaseRefusedError: An approval is due and there is none.
        ConfigError: The signing key is missing or damaged.
        StorageError: The store failed.
    """
    config, store = platform.config, platform.promoter_store
    who, why = (
        getpass.getuser(),
        f"passed {config.gate.policy.stem} in evaluation {evaluated.report_digest[:12]}",
    )
    approval: dict[str, str] = {}
    if is_approval_due(platform, edited, decided):
        approved = verify_approval(platform, edited, decided, signed_approval)
        approval = {"approval": signed_approval or ""}
        why += f", approved by {approved.approver} ({approved.why})"
    registry_version = register(platform, edited, evaluated, decided)
    before = read_channel(store, config.model, config.promote.channel)
    metadata = {
        "base_digest": edited.base_digest,
        "report_blob": put_blob(store, evaluated.report),
        "report_digest": evaluated.report_digest,
        "champion_version": champion_version(platform, edited.checkpoint_digest),
        "edit_run": edited.run_id,
        "evaluation_run": evaluated.run_id,
        **approval,
    }
    facts = release_facts(platform, edited, evaluated, decided)
    release = publish(
        store,
        config.model,
        edited.checkpoint,
        decided.decision.read_bytes(),
        papers=Papers(sbom=ml_bom(facts), model_card=model_card(facts).encode()),
        signer=ModelSigner(platform.signing_key),
        verifier=platform.verifier,
        provenance=Provenance(who, why, metadata),
    )
    channel = move_channel(
        store,
        config.model,
        config.promote.channel,
        release.version,
        verifier=platform.verifier,
        who=who,
        why=why,
    )
    platform.registry.set_alias(config.model, CHAMPION_ALIAS, registry_version)
    return Promoted(
        model=release.model,
        version=release.version,
        uri=release.uri,
        digest=release.digest,
        channel=channel.channel,
        registry_version=registry_version,
        public_key=public_key_file(config, platform.signing_key),
        changed=before is None or before.digest != channel.digest,
    )


def release_facts(platform: Platform, edited: Edited, evaluated: Evaluated, decided: Decided) -> ReleaseFacts:
    """Gather what the model card and the bill of materials tell."""
    config = platform.config
    index = json.loads((edited.checkpoint / "model_index.json").read_text())
    return ReleaseFacts(
        model=config.model,
        architecture=str(index.get("_class_name", "unknown")),
        base=config.base.source,
        method=config.edit.kind,
        settings={"seed": config.seed, **config.edit.model_dump(exclude={"kind"})},
        files=tree_digests(edited.checkpoint),
        report=read_report(evaluated.report),
        decision=Decision.model_validate_json(decided.decision.read_text()),
        licence=config.promote.licence,
    )
