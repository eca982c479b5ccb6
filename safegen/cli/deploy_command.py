"""`safegen deploy`: registers what runs unattended with a Prefect server."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from safegen.cli.answer import Answer, answering
from safegen.cli.options import MINIATURE_RUN, ConfigOption

commands = typer.Typer()


@commands.command()
@answering
def deploy(
    config: ConfigOption = MINIATURE_RUN,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="Deployments; without it, the prefect.yaml that ships.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Stages that may compute on a GPU at a time.")] = 1,
    pool_type: Annotated[
        Literal["process", "kubernetes"], typer.Option(help="Type of the work pool.")
    ] = "process",
    base_job_template: Annotated[
        Path | None, typer.Option(help="JSON of the pool, as in infra/kubernetes/work-pool.json.")
    ] = None,
) -> Answer:
    """Make work pool, limits and automations and register the schedules; the same again changes nothing.

    The server is that of `safegen stack up` for this workspace, or of PREFECT_API_URL. SAFEGEN_NOTIFY_URL names a
    webhook that is told of failed and waiting runs, blocked candidates and new releases.

    Example: safegen stack up && safegen deploy --config configs/miniature.toml
    """
    from safegen.cli.environment import prepare_run
    from safegen.config import load_config
    from safegen.errors import ConfigError
    from safegen.shipped import locate, shipped_deployments

    run = load_config(config)
    prepare_run(run, debug=False)
    server = os.environ.get("PREFECT_API_URL")
    if not server:
        raise ConfigError("no Prefect server is known; start one (safegen stack up) or set PREFECT_API_URL")
    from flows.deploy import POOL, Operations
    from flows.deploy import deploy as register

    operations = Operations(
        gpus=gpus,
        pool_type=pool_type,
        base_job_template=base_job_template,
        notify_url=os.environ.get("SAFEGEN_NOTIFY_URL") or None,
        variables={
            "SAFEGEN_HOME": str(Path.cwd()),
            "SAFEGEN_CONFIG": str(locate(config).absolute()),
            "SAFEGEN_RESULTS": str(run.workspace.absolute() / "prefect" / "storage"),
            "SAFEGEN_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "0"),
        },
    )
    made = register(file or shipped_deployments(), operations)
    worker = f"PREFECT_API_URL={shlex.quote(server)} prefect worker start --pool {POOL}"
    document = {"server": server, "pool": POOL, "deployments": list(made), "worker": worker}
    return Answer(document, "\n".join([*made, "", "Now let a worker carry them out:", f"  {worker}"]))
