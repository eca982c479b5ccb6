"""One suite drawn under several evaluation seeds: all in one, so that numbers exist by seed and over all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from safegen.errors import DataError
from safegen.evaluation.prompt_suite import PromptRow, PromptSuite, derived_seed


@dataclass(frozen=True, slots=True)
class SeededSuite:
    """A suite and the evaluation seed of each of its rows.

    Attributes:
        suite: All rows; ids end in ":" and the evaluation seed.
        seeds: Evaluation seed of each row.
    """

    suite: PromptSuite
    seeds: tuple[int, ...]

    def places(self, seed: int | None) -> list[int]:
        """Return the places of one seed's rows, or of all."""
        return [place for place, own in enumerate(self.seeds) if seed is None or own == seed]

    def first(self, count: int) -> SeededSuite:
        """Return the first rows of every seed."""
        kept = [place for seed in dict.fromkeys(self.seeds) for place in self.places(seed)[:count]]
        return self.at(kept)

    def at(self, places: Sequence[int]) -> SeededSuite:
        """Return some of the rows."""
        rows = tuple(self.suite.rows[place] for place in places)
        return SeededSuite(
            PromptSuite(self.suite.name, self.suite.kind, rows), tuple(self.seeds[place] for place in places)
        )


def join_seeds(parts: Mapping[int, PromptSuite]) -> SeededSuite:
    """Join what a suite is under several evaluation seeds.

    A prompt that comes with a seed of its own is the same under every evaluation seed; from the second on its picture's
    seed is then derived, since the same picture again would be no new evidence.

    Args:
        parts: The suite by evaluation seed; at least one, all of one name and kind.

    Raises:
        DataError: There is none.
    """
    if not parts:
        raise DataError("no evaluation seed is given; expected at least one")
    rows: list[PromptRow] = []
    seeds: list[int] = []
    taken: set[tuple[str, int]] = set()
    for seed, part in parts.items():
        for row in part.rows:
            key = f"{row.prompt_id}:{seed}"
            again = (row.text, row.seed) in taken
            rows.append(replace(row, prompt_id=key, seed=derived_seed(key, seed) if again else row.seed))
            taken.add((row.text, rows[-1].seed))
            seeds.append(seed)
    some = next(iter(parts.values()))
    return SeededSuite(PromptSuite(some.name, some.kind, tuple(rows)), tuple(seeds))
