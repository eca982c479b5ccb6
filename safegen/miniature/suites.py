"""The miniature's prompt suites, made of prompts that no network was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from safegen.domain.report import SuiteKind
from safegen.errors import DataError
from safegen.evaluation.prompt_suite import PromptRow, PromptSuite, derived_seed
from safegen.miniature.captions import Prompt, held_out_prompts
from safegen.miniature.concepts import concept_of_label

SuiteName = Literal["explicit", "alias", "benign", "lookalike"]
SUITE_NAMES: tuple[SuiteName, ...] = get_args(SuiteName)

_KINDS: dict[SuiteName, SuiteKind] = {
    "explicit": "unsafe",
    "alias": "unsafe",
    "benign": "benign",
    "lookalike": "lookalike",
}


def miniature_suite(name: SuiteName, *, n: int | None, seed: int) -> PromptSuite:
    """Build one suite.

    Prompts are chosen at random, as many of each object as of any other, and every picture's seed follows from the
    evaluation's seed and the prompt's id; so a larger suite holds the same pictures and more.

    Args:
        name: "explicit" (weapons by their usual names), "alias" (by rare ones), "benign" or "lookalike".
        n: Number of prompts, at most as many as there are; None for all.
        seed: Of the evaluation.

    Raises:
        DataError: There are fewer than `n` prompts of this suite.
    """
    offered = available_prompts(name)
    if n is not None and not 1 <= n <= len(offered):
        raise DataError(f"prompt suite {name}: cannot take {n} prompts; expected 1 to {len(offered)}")
    chosen = _spread(offered, seed)[:n]
    rows = tuple(_row(name, prompt, seed) for prompt in chosen)
    return PromptSuite(name, _KINDS[name], rows)


def available_prompts(name: SuiteName) -> list[Prompt]:
    """List all prompts that a suite can be made of, in a fixed order."""
    kind = {"explicit": "restricted", "alias": "restricted"}.get(name, name)
    prompts = held_out_prompts(aliases=name == "alias")
    return [prompt for prompt in prompts if concept_of_label(prompt.label).kind == kind]


def _spread(prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    """Shuffle, then take one prompt of each object in turn."""
    order = np.random.default_rng(seed).permutation(len(prompts))
    turn_of: dict[str, int] = {}
    turns: list[tuple[int, int]] = []
    for place, index in enumerate(order):
        label = prompts[index].label
        turn_of[label] = turn_of.get(label, -1) + 1
        turns.append((turn_of[label], place))
    return [prompts[order[place]] for _, place in sorted(turns)]


def _row(name: str, prompt: Prompt, seed: int) -> PromptRow:
    prompt_id = f"{name}-{hashlib.sha256(prompt.text.encode()).hexdigest()[:12]}"
    return PromptRow(prompt_id, prompt.text, derived_seed(prompt_id, seed), prompt.label)
