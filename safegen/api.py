"""The steps of the command line as calls, for notebooks and for other people's pipelines: what `import safegen` offers.

    edited = safegen.edit("configs/miniature.toml")
    evaluated = safegen.evaluate("configs/miniature.toml")
    decision = safegen.gate(evaluated.report, edited.checkpoint, "policies/miniature.toml")

Each call is the command of the same name and returns a frozen value. The calls share kept results with the commands, so
what has been made for a configuration is not made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safegen import __version__
from safegen.config import RunConfig, load_config
from safegen.shipped import locate

if TYPE_CHECKING:
    from safegen.domain.decision import Decision
    from safegen.pipeline.outcomes import Edited, Evaluated
    from safegen.release.verify import Verification

MINIATURE_RUN = "configs/miniature.toml"


def edit(config: Path | str = MINIATURE_RUN) -> Edited:
    """Make the candidate of a configuration: ingest, validate, triplets, edit, each only where it has not been done.

    Progress goes to standard error. A killed edit goes on where it was.

    Args:
        config: Run configuration, a TOML file.

    Returns:
        The candidate: its folder in diffusers layout, its digest, and the delta with the edited weights alone.

    Raises:
        safegen.errors.ConfigError: The configuration is missing or wrong.
        safegen.errors.DataError: Pictures or base model cannot be used.
        safegen.errors.EditError: The edit failed.
    """
    from safegen.pipeline.outcomes import Edited

    return Edited.model_validate(_until("edit", config))


def evaluate(config: Path | str = MINIATURE_RUN) -> Evaluated:
    """Compare the candidate of a configuration with its base; makes the candidate first where there is none.

    Args:
        config: Run configuration, a TOML file.

    Returns:
        The evaluation: report.json, contact sheets, and metrics by "suite/metric", with "_low" and "_high" for the
        ends of the 95 % interval.

    Raises:
        safegen.errors.ConfigError: The configuration is missing or wrong.
        safegen.errors.EvaluationError: Something could not be drawn, scored or measured.
    """
    from safegen.pipeline.outcomes import Evaluated

    return Evaluated.model_validate(_until("evaluate", config))


def gate(
    report: Path | str,
    checkpoint: Path | str,
    policy: Path | str,
    *,
    champion: Path | str | None = None,
) -> Decision:
    """Decide whether a checkpoint may be released. Fails closed: whatever cannot be read or proven blocks.

    Args:
        report: report.json of its evaluation; results.parquet must lie beside it.
        checkpoint: The candidate's folder, hashed here.
        policy: Policy, a TOML file.
        champion: report.json of what is released now, where a policy compares with it.

    Returns:
        The decision with every check; `passed` and `reasons` say it in short.

    Raises:
        safegen.errors.ConfigError: There is no such policy.
    """
    from safegen.domain.gate_files import decide_from_files

    return decide_from_files(
        Path(report),
        Path(checkpoint),
        locate(Path(policy)),
        None if champion is None else Path(champion),
        now=datetime.now(UTC),
        versions={"safegen": __version__},
    )


def verify(
    release: Path | str, *, public_keys: Sequence[Path | str], config: Path | str = MINIATURE_RUN
) -> Verification:
    """Prove a release: signature, digests of every file, and a decision that is a pass for this very checkpoint.

    Args:
        release: A pulled folder, which needs no network, or `s3://BUCKET/releases/MODEL/VERSION`.
        public_keys: Files of the public keys to trust.
        config: Says where the store of a URI is; not read for a folder.

    Returns:
        Every check; `valid` says whether the release may be used.

    Raises:
        safegen.errors.DataError: There is no such folder.
        safegen.errors.ConfigError: A key cannot be read.
        safegen.errors.StorageError: The store cannot be reached, or has no such release.
    """
    from safegen.adapters.signing import ModelVerifier
    from safegen.adapters.signing_keys import read_public_key
    from safegen.bootstrap import open_reader_at
    from safegen.release.layout import parse_release_uri
    from safegen.release.verify import verify_folder, verify_stored

    verifier = ModelVerifier([read_public_key(Path(key)) for key in public_keys])
    if "://" not in str(release):
        return verify_folder(Path(release), verifier)
    address = parse_release_uri(str(release))
    with open_reader_at(load_config(Path(config)), address.store_uri) as store:
        return verify_stored(store, address.model, address.version, verifier)


def prepared_run(config: Path | str, *, defence: str | None = None, debug: bool) -> RunConfig:
    """Read a configuration, refuse what can be refused at once, and set the process up for the flows.

    Where Prefect keeps its state is settled by the first run of a process.

    Args:
        config: Run configuration, a TOML file.
        defence: Edit by this weight edit instead of the configuration's.
        debug: Let Prefect, diffusers and transformers tell what they do.

    Raises:
        safegen.errors.ConfigError: The configuration is missing or wrong.
        safegen.errors.DataError: An input of the run is missing.
    """
    from safegen.cli.environment import prepare_run, show_own_notes
    from safegen.pipeline.defences import with_defence
    from safegen.pipeline.preflight import check_inputs

    run = load_config(Path(config))
    if defence is not None:
        run = with_defence(run, defence)
    check_inputs(run)  # the flow does so too, but Prefect takes seconds to begin
    prepare_run(run, debug=debug)
    show_own_notes()
    return run


def _until(stage: Literal["edit", "evaluate"], config: Path | str) -> dict[str, object]:
    run = prepared_run(config, debug=False)
    from flows.protect import protect_until
    from flows.stage import observed_by
    from safegen.cli.retrain_text import show_stage

    with observed_by(show_stage):
        return protect_until(run, stage).result
