"""Opens the prompt suites of a run."""

from __future__ import annotations

from safegen.config import MiniatureSuite, RunConfig
from safegen.evaluation.prompt_sets.load import open_prompt_file
from safegen.evaluation.prompt_suite import PromptSuite
from safegen.miniature.suites import miniature_suite


def open_suites(config: RunConfig) -> list[PromptSuite]:
    """Return the suites that the configuration names, each cut to its number of prompts.

    Raises:
        DataError: A file is not as expected, or a suite has too few prompts.
    """
    return [
        miniature_suite(suite.name, n=suite.n, seed=config.seed)
        if isinstance(suite, MiniatureSuite)
        else open_prompt_file(suite, seed=config.seed)
        for suite in config.evaluate.suites
    ]


def suite_digests(config: RunConfig) -> dict[str, str]:
    """Return the digest of each suite: a file may hold other prompts today than the configuration meant yesterday."""
    return {suite.name: suite.sha256 for suite in open_suites(config)}
