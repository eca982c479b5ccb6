"""Opens the prompt suites of a run."""

from __future__ import annotations

from safegen.bootstrap import Platform
from safegen.evaluation.prompt_suite import PromptSuite
from safegen.miniature.suites import miniature_suite


def open_suites(platform: Platform) -> list[PromptSuite]:
    """Return the suites that the configuration names, each cut to its number of prompts."""
    return [
        miniature_suite(suite.name, n=suite.n, seed=platform.config.seed)
        for suite in platform.config.evaluate.suites
    ]
