"""Which commands there are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from safegen.cli.answer import Answer, OutputMode, answering, give, give_error
from safegen.cli.keys_command import keys_app
from safegen.cli.verify_command import verify

_CONFIG = Path("configs/miniature.toml")
ConfigOption = Annotated[Path, typer.Option("--config", help="Run configuration, a TOML file.")]

app = typer.Typer(
    name="safegen",
    help="Make text-to-image models unable to draw a restricted concept, and let none out without proof.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
stack_app = typer.Typer(help="The local object store, MLflow and Prefect, on loopback.", no_args_is_help=True)
app.add_typer(stack_app, name="stack")
app.add_typer(keys_app, name="keys")
app.command()(verify)


@app.command()
@answering
def retrain(config: ConfigOption = _CONFIG) -> Answer:
    """Ingest, validate, edit, evaluate, gate, and promote what passes.

    Example: safegen retrain --config configs/miniature.toml
    """
    from safegen.cli.environment import prepare_run
    from safegen.config import load_config

    run = load_config(config)
    prepare_run(run, debug="--debug" in sys.argv)
    from flows.protect import protect
    from flows.stage import observed_by
    from safegen.cli.retrain_text import show_stage, summary_text

    with observed_by(show_stage):
        summary = protect(run)
    return Answer(summary.model_dump(mode="json"), summary_text(summary), summary.exit_code)


@app.command()
@answering
def gate(
    *,
    report: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="report.json of the evaluation.")],
    checkpoint: Annotated[Path, typer.Option(exists=True, file_okay=False, help="The candidate's folder.")],
    policy: Annotated[Path, typer.Option(help="Policy, a TOML file.")],
    champion: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The champion's report.json.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the checks as JUnit XML.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write the failed checks as SARIF.")] = None,
    decision: Annotated[Path | None, typer.Option(help="Write the decision as JSON.")] = None,
) -> Answer:
    """Decide whether a checkpoint may be released: exit 0 pass, 1 blocked, 3 could not decide (and blocks).

    Example: safegen gate --report report.json --checkpoint candidate --policy policies/miniature.toml
    """
    import json
    from datetime import UTC, datetime

    from safegen import __version__
    from safegen.domain.decision_formats import as_json, as_junit, as_markdown, as_sarif
    from safegen.domain.gate_files import decide_from_files
    from safegen.shipped import locate

    made = decide_from_files(
        report,
        checkpoint,
        locate(policy),
        champion,
        now=datetime.now(UTC),
        versions={"safegen": __version__},
    )
    sarif_text = as_sarif(made, report_uri=report.as_posix(), tool_version=__version__)
    for path, text in ((junit, as_junit(made)), (sarif, sarif_text), (decision, as_json(made))):
        if path is not None:
            path.write_text(text)
    return Answer(json.loads(as_json(made)), as_markdown(made), made.exit_code)


@app.command()
@answering
def releases(model: str, config: ConfigOption = _CONFIG) -> Answer:
    """List the releases of a model, what its channels point to, and who did what; 1 for an audit log tampered with.

    Example: safegen releases miniature
    """
    from safegen.bootstrap import open_reader
    from safegen.config import load_config
    from safegen.release.audit import audit_problems, read_audit
    from safegen.release.catalogue import list_releases
    from safegen.release.channel import list_channels

    with open_reader(load_config(config)) as store:
        found, channels = list_releases(store, model), list_channels(store, model)
        problems = audit_problems(store, model, found, channels)
        entries = () if problems else read_audit(store, model)
    document = {
        "model": model,
        "releases": [
            {"version": one.version, "digest": one.digest, "created_utc": one.created_utc} for one in found
        ],
        "channels": {one.channel: one.version for one in channels},
        "audit": [entry.model_dump(mode="json") for entry in entries],
        "audit_problems": list(problems),
    }
    lines = [f"{one.version:>4}  {one.created_utc}  {one.checkpoint_digest[:16]}" for one in found]
    lines += [f"{model}@{one.channel} is version {one.version}" for one in channels]
    lines += [
        f"{one.utc}  {one.who}: {one.action} version {one.version}"
        + (f" on {one.channel} (before: {one.previous or 'nothing'})" if one.channel else "")
        + f", {one.why}"
        for one in entries
    ]
    lines += [f"audit log tampered with: {problem}" for problem in problems]
    return Answer(document, "\n".join(lines) or f"{model} has no release", 1 if problems else 0)


@app.command()
@answering
def pull(
    name: str,
    folder: Path,
    config: ConfigOption = _CONFIG,
    *,
    public_key: Annotated[
        list[Path] | None, typer.Option("--public-key", help="Public key to trust, instead of the config's.")
    ] = None,
) -> Answer:
    """Fetch MODEL@CHANNEL, proving signature, decision and every digest before the folder appears.

    Example: safegen pull miniature@production ./model
    """
    from safegen.bootstrap import open_reader
    from safegen.config import load_config
    from safegen.loading import split_name
    from safegen.release.pull import pull as fetch
    from safegen.release_keys import open_verifier

    run = load_config(config)
    model, channel = split_name(name)
    verifier = open_verifier(run, public_key or ())
    with open_reader(run) as store:
        release = fetch(store, model, channel, folder, verifier=verifier)
    document = {
        "model": release.model,
        "version": release.version,
        "digest": release.digest,
        "folder": str(folder),
    }
    return Answer(document, f"{release.model} version {release.version} is in {folder}")


@app.command()
@answering
def rollback(
    model: str,
    to: Annotated[str, typer.Option("--to", help="Version to point at again.")],
    channel: Annotated[str, typer.Option(help="Which channel.")] = "production",
    why: Annotated[str, typer.Option(help="The reason, for the audit log.")] = "safegen rollback",
    config: ConfigOption = _CONFIG,
) -> Answer:
    """Point a channel back at an earlier release, once every byte of that is proven.

    Example: safegen rollback miniature --to 1 --why "complaints about hands"
    """
    import getpass

    from safegen.bootstrap import open_platform
    from safegen.config import load_config
    from safegen.release.channel import rollback as move_back
    from safegen.release_keys import open_verifier

    run = load_config(config)
    verifier = open_verifier(run)
    with open_platform(run) as platform:
        moved = move_back(
            platform.promoter_store, model, channel, to, verifier=verifier, who=getpass.getuser(), why=why
        )
    return Answer(moved.model_dump(mode="json"), f"{model}@{channel} is version {moved.version}")


@stack_app.command("up")
@answering
def stack_up(config: ConfigOption = _CONFIG) -> Answer:
    """Start all services and leave them up."""
    from safegen.bootstrap import stack_root
    from safegen.config import load_config
    from safegen.release_keys import promoter_key_files
    from safegen.stack import control
    from safegen.stack.servers import RegistrySettings

    run = load_config(config)
    registry = RegistrySettings(run.workspace.absolute() / "mlflow.db", promoter_key_files(run))
    control.start(stack_root(run), registry=registry)
    return _stack_answer(stack_root(run))


@stack_app.command("down")
@answering
def stack_down(config: ConfigOption = _CONFIG) -> Answer:
    """Stop what `up` started."""
    from safegen.bootstrap import stack_root
    from safegen.config import load_config
    from safegen.stack import control

    root = stack_root(load_config(config))
    control.stop(root)
    return _stack_answer(root)


@stack_app.command("status")
@answering
def stack_status(config: ConfigOption = _CONFIG) -> Answer:
    """Show which services run, and where."""
    from safegen.bootstrap import stack_root
    from safegen.config import load_config

    return _stack_answer(stack_root(load_config(config)))


def _stack_answer(root: Path) -> Answer:
    from safegen.stack import control

    found = control.status(root)
    document = {"services": [{"name": one.name, "state": one.state, "url": one.url} for one in found]}
    return Answer(document, "\n".join(f"{one.name:8} {one.state:8} {one.url or ''}" for one in found))


def run_command_line(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: The words after `safegen`; None takes those of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    mode = OutputMode.of(words)
    try:
        answer = app(args=words, standalone_mode=False)
    except Exception as error:  # noqa: BLE001  (every error becomes one line and an exit code)
        return give_error(error, mode)
    return give(answer, mode) if isinstance(answer, Answer) else int(answer or 0)
