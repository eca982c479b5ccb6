"""`safegen stack …`: the local services."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safegen.cli.answer import Answer, answering
from safegen.cli.options import MINIATURE_RUN, ConfigOption

commands = typer.Typer(help="The local object store, MLflow and Prefect, on loopback.", no_args_is_help=True)


@commands.command("up")
@answering
def stack_up(config: ConfigOption = MINIATURE_RUN) -> Answer:
    """Start all services and leave them up; runs of this workspace then use them.

    Example: safegen stack up --config configs/miniature.toml
    """
    from safegen.bootstrap import stack_root
    from safegen.config import load_config
    from safegen.release_keys import promoter_key_files
    from safegen.stack import control
    from safegen.stack.servers import RegistrySettings

    run = load_config(config)
    registry = RegistrySettings(run.workspace.absolute() / "mlflow.db", promoter_key_files(run))
    control.start(stack_root(run), registry=registry)
    return _stack_answer(stack_root(run))


@commands.command("down")
@answering
def stack_down(config: ConfigOption = MINIATURE_RUN) -> Answer:
    """Stop what `up` started; what it stored stays.

    Example: safegen stack down
    """
    from safegen.bootstrap import stack_root
    from safegen.config import load_config
    from safegen.stack import control

    root = stack_root(load_config(config))
    control.stop(root)
    return _stack_answer(root)


@commands.command("status")
@answering
def stack_status(config: ConfigOption = MINIATURE_RUN) -> Answer:
    """Show which services run, and where.

    Example: safegen stack status --json
    """
    from safegen.bootstrap import stack_root
    from safegen.config import load_config

    return _stack_answer(stack_root(load_config(config)))


@commands.command("buckets")
@answering
def stack_buckets(
    endpoint: Annotated[str, typer.Option(help="Address of an S3 server.")],
    bucket: Annotated[list[str], typer.Option("--bucket", help="A bucket to make unless it is there.")],
) -> Answer:
    """Make buckets on a server of yours, as the identity of AWS_ACCESS_KEY_ID; waits a minute for the server.

    Example: safegen stack buckets --endpoint https://s3:8333 --bucket safegen --bucket mlflow
    """
    from safegen.adapters.s3_buckets import ensure_bucket
    from safegen.adapters.s3_store import s3_client

    client = s3_client(endpoint_url=endpoint, region="us-east-1", credentials=None, attempts=8)
    for name in bucket:
        ensure_bucket(client, name)
    return Answer({"endpoint": endpoint, "buckets": bucket}, "\n".join(bucket))


def _stack_answer(root: Path) -> Answer:
    from safegen.stack import control

    found = control.status(root)
    document = {"services": [{"name": one.name, "state": one.state, "url": one.url} for one in found]}
    return Answer(document, "\n".join(f"{one.name:8} {one.state:8} {one.url or ''}" for one in found))
