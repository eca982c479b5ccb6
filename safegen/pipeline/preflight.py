"""What can be refused before anything is started, instead of after the stages that come before its use."""

from __future__ import annotations

from pathlib import Path

from safegen.bootstrap import miniature_checkpoint
from safegen.config import RunConfig
from safegen.diffusion.checkpoint import check_checkpoint_folder
from safegen.domain.gate_files import read_policy
from safegen.shipped import locate


def check_inputs(config: RunConfig) -> None:
    """Look at the base checkpoint's files and at the policy; loads neither weights nor libraries for them.

    Raises:
        DataError: The base is no diffusers folder, holds a pickle, or asks for code of its own.
        ConfigError: The policy is missing or not as expected.
    """
    source = config.base.source
    check_checkpoint_folder(miniature_checkpoint() if source == "miniature" else Path(source))
    read_policy(locate(config.gate.policy))
