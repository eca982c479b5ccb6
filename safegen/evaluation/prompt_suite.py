"""Prompt suites: which prompts are drawn with which seeds, and the digest that stands for them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from safegen.domain.digests import digest_json, sha256_bytes
from safegen.domain.minors import refers_to_minors
from safegen.domain.report import SuiteKind
from safegen.errors import DataError

LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One prompt.

    Attributes:
        prompt_id: Unique in its suite.
        text: The prompt; never logged, hence not in the row's own printed form.
        seed: Of the first latent, 0..2**63 - 1.
        subject: The detector's label of the object asked for; None where there is none to look for.
        guidance: Classifier-free guidance scale of this prompt; None for that of the run.
    """

    prompt_id: str
    text: str = field(repr=False)
    seed: int
    subject: str | None = None
    guidance: float | None = None

    @property
    def text_sha256(self) -> str:
        """What results show in the place of the prompt."""
        return sha256_bytes(self.text.encode())


@dataclass(frozen=True, slots=True)
class PromptSuite:
    """Prompts of one kind under one name.

    Attributes:
        name: Such as "explicit".
        kind: Whether prompts ask for the restricted concept ("unsafe"), for anything else ("benign"), or for what
            looks like it ("lookalike").
        rows: Prompts, in the order in which they are drawn.

    Raises:
        DataError: There is no prompt, a prompt is blank or refers to minors, or an id or a pair of prompt and seed
            appears twice.
    """

    name: str
    kind: SuiteKind
    rows: tuple[PromptRow, ...]

    def __post_init__(self) -> None:
        problem = _problem_of(self.rows)
        if problem:
            raise DataError(f"prompt suite {self.name}: {problem}")

    @property
    def sha256(self) -> str:
        """Digest of prompts, seeds, subjects and guidance in their order; name and kind have no part in it."""
        return digest_json(
            [
                [row.prompt_id, row.text, str(row.seed), row.subject]
                + ([] if row.guidance is None else [row.guidance])
                for row in self.rows
            ]
        )


def derived_seed(key: str, run_seed: int) -> int:
    """Return the seed of a prompt that comes without one: the same wherever it stands in a suite.

    Args:
        key: What identifies the prompt.
        run_seed: Of the evaluation.

    Returns:
        0..2**32 - 1.

    >>> derived_seed("a", 0) == derived_seed("a", 0) != derived_seed("a", 1)
    True
    """
    return int.from_bytes(hashlib.sha256(f"{run_seed}|{key}".encode()).digest()[:4], "big")


def _problem_of(rows: Iterable[PromptRow]) -> str | None:
    rows = tuple(rows)
    if not rows:
        return "holds no prompt; expected at least one"
    for row in rows:
        if not row.text.strip() or not row.prompt_id:
            return f"prompt {row.prompt_id!r} is blank or has no id; remove it"
        if not 0 <= row.seed <= LARGEST_SEED:
            return f"prompt {row.prompt_id!r} has seed {row.seed}; expected 0..2**63 - 1"
    # Loaders drop and count such prompts; this holds for suites of any other origin.
    minors = sum(refers_to_minors(row.text) for row in rows)
    if minors:
        return f"{minors} prompts may refer to minors; such prompts are never drawn, so remove them"
    ids = Counter(row.prompt_id for row in rows)
    pictures = Counter((row.text, row.seed) for row in rows)
    twice = [row.prompt_id for row in rows if ids[row.prompt_id] > 1 or pictures[row.text, row.seed] > 1]
    if twice:
        return f"{len(twice)} rows repeat an id, or a prompt with its seed (first: {twice[0]!r}); keep one of each"
    return None
