"""The only module that changes the process's environment, always before the library that reads it is imported.

A variable that the user has set is left as it is.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from safegen.config import RunConfig

_NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# Both warn of choices that are theirs (which image processor, which parts stay in float32); failures are exceptions.
_QUIET_MODELS = {"DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}


def prepare_run(config: RunConfig, *, debug: bool) -> None:
    """Set what Prefect, MLflow, Great Expectations and the Hub client read; call before any of them is imported.

    Args:
        config: The run.
        debug: Let Prefect, diffusers and transformers tell what they do.
    """
    workspace = config.workspace.absolute()
    (workspace / "prefect").mkdir(
        parents=True, exist_ok=True
    )  # Prefect makes no parents, and warns in each process
    variables = {
        **_NO_TELEMETRY,
        "PREFECT_HOME": str(workspace / "prefect"),
        # On a busy machine the ephemeral server misses its usual 20 seconds.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_LEVEL": "INFO" if debug else "WARNING",
        "TOKENIZERS_PARALLELISM": "false",  # else a warning whenever a process is forked after the first use
    }
    if not debug:
        variables |= _QUIET_MODELS
        # Prefect logs every failure with a traceback; ours is one line. Its API still keeps the records.
        variables["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        variables["PREFECT_SERVER_LOGGING_LEVEL"] = "CRITICAL"
    from safegen.stack.control import running_url

    if server := running_url(workspace / "stack", "prefect"):
        variables["PREFECT_API_URL"] = f"{server}/api"
    if not _needs_hub(config):
        variables |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def show_own_notes() -> None:
    """Let safegen's own warnings reach standard error as one line each, whatever Prefect does with the root logger."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("safegen: note: %(message)s"))
    handler.setLevel(logging.WARNING)
    for name in ("safegen", "flows"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False


def _needs_hub(config: RunConfig) -> bool:
    return any(
        source.kind == "huggingface" and not Path(source.location).exists()
        for source in config.ingest.sources
    )
