"""What can be refused before anything is started, instead of after the stages that come before its use."""

from __future__ import annotations

from pathlib import Path

from safegen.bootstrap import miniature_checkpoint
from safegen.config import FileKeySection, RunConfig
from safegen.diffusion.checkpoint import check_checkpoint_folder
from safegen.domain.gate_files import read_policy
from safegen.errors import ConfigError
from safegen.pipeline.suites import open_suites
from safegen.release_keys import open_signing_key
from safegen.shipped import locate


def check_inputs(config: RunConfig) -> None:
    """Look at the base checkpoint's files, the policy, the signing key and the prompt suites; loads no weights.

    Raises:
        DataError: The base is no diffusers folder, holds a pickle, or asks for code of its own, or a suite's
            file is not as expected, or it has too few prompts.
        ConfigError: The policy or the signing key is missing or not as expected, or an edit that acts on text is not
            told what the concept is called.
    """
    if config.edit.kind != "safegen" and config.concept is None:
        raise ConfigError(
            f"config: table 'concept' is missing; edit.kind {config.edit.kind!r} needs its phrases"
        )
    source = config.base.source
    if source == "miniature":
        check_checkpoint_folder(miniature_checkpoint())
    elif not config.base.revision and "://" not in source:  # else it is checked once it has been fetched
        check_checkpoint_folder(Path(source))
    read_policy(locate(config.gate.policy))
    if config.promote.signing != FileKeySection():  # that one is made when it is needed
        open_signing_key(config)
    open_suites(config)
