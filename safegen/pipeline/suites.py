"""Opens the prompt suites of a run."""

from __future__ import annotations

from safegen.config import RunConfig
from safegen.evaluation.prompt_suite import PromptSuite
from safegen.miniature.suites import miniature_suite


def open_suites(config: RunConfig) -> list[PromptSuite]:
    """Return the suites that the configuration names, each cut to its number of prompts."""
    return [miniature_suite(suite.name, n=suite.n, seed=config.seed) for suite in config.evaluate.suites]
