"""What a benchmark ends with: rows of numbers, judged pictures that can be tested in pairs, and their document.

    BenchmarkDocument        docs/benchmark.json
    ├── how                  what was measured, by whom, with which seeds and budgets
    ├── rows: BenchmarkRow   one number with its interval
    ├── tests: PairedTest    defence against the tested one, corrected by Holm
    └── risk: RiskPoint      an adversarial prompt: how far from explicit ones, and what it made models draw

No part of it holds a prompt.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field, NonNegativeInt

from safegen.domain.report import Name, Plain, Rate, Record, SuiteKind

NO_ATTACK = "none"
POOLED = None
"""The seed of rows over all seeds."""


class BenchmarkRow(Record):
    """One number.

    Attributes:
        defence: Such as "safegen".
        suite: What was drawn.
        attack: "none", or the attack that made the prompts or changed the model.
        seed: Of the evaluation; None for all seeds together.
        metric: One of the report's, or "refused_rate", "blacked_out_rate", "images_per_second", …
        value: The point estimate, None where it could not be computed.
        low: Lower end of the 95 % interval, None where there is none.
        high: Upper end.
        n: Independent units behind it: prompts for nrr, else pictures or pairs.
        reason: Why there is no value.
    """

    defence: str
    suite: str
    attack: str = NO_ATTACK
    seed: int | None = POOLED
    metric: Name
    value: float | None
    low: float | None = None
    high: float | None = None
    n: NonNegativeInt
    reason: str | None = None


class JudgedPicture(Record):
    """One picture of a defence, as tests in pairs need it.

    Attributes:
        key: What is compared: prompt and seed, the same for every defence.
        prompt: Id of the prompt, or of the one that an attack set out from; its pictures are no independent evidence.
        unsafe: Whether it is unsafe; None where it could not be scored.
        kept: Whether it shows what was asked; None where nothing to look for was.
        score: The detector's best score of an unsafe label, 0 where it finds none; None where no picture was given.
        base_score: The same of the unedited model's picture of this prompt.
    """

    key: str
    prompt: str
    unsafe: bool | None
    kept: bool | None
    score: float | None
    base_score: float | None


class PairedTest(Record):
    """One defence against the tested one on one suite.

    Attributes:
        defence: The other.
        suite: Where.
        measure: "unsafe" or "kept".
        count: Of the other's pictures.
        tested_count: Of the tested defence's.
        n: Pairs of pictures.
        prompts: Prompts, which are what is exchanged.
        p: Exact two-sided sign-flip test.
        p_holm: The same, corrected for all tests of the document.
    """

    defence: str
    suite: str
    measure: str
    count: NonNegativeInt
    tested_count: NonNegativeInt
    n: NonNegativeInt
    prompts: NonNegativeInt
    p: Rate
    p_holm: Rate


class RiskPoint(Record):
    """One prompt in text space, and what it makes models draw.

    Attributes:
        suite: Where it is from; "sneaky" ones name the defence that they were found against.
        found_against: That defence; None for others.
        kind: Whether it asks for the concept.
        distance: 1 - the largest cosine between its embedding and an explicit prompt's in CLIP's text space.
        score: The detector's best score of an unsafe label by model, 0 where it finds none; None where the prompt was
            refused, its picture withheld, or not scored.
    """

    suite: str
    found_against: str | None
    kind: str
    distance: float
    score: dict[str, float | None]


class BenchmarkDocument(Record):
    """All of a benchmark.

    Attributes:
        schema_version: 1.
        created_utc: When it ended.
        command: What reproduces it.
        tested: The defence that all others are tested against.
        text_dependent: Defences that act by what a prompt says.
        suites: What was drawn, and what its prompts ask for; those of the token search among it.
        explicit: The suite that holds the concept's usual names.
        how: Settings, digests and versions that one must know to compare numbers.
        rows: In the order of defences.
        tests: All that were made; Holm's correction is over them.
        risk: Of adversarial prompts and others.
        seconds: How long what was measured anew took.
    """

    schema_version: Literal[1] = 1
    created_utc: AwareDatetime
    command: str
    tested: str
    text_dependent: tuple[str, ...] = ()
    suites: dict[str, SuiteKind]
    explicit: str
    how: dict[str, Plain] = Field(default_factory=dict)
    rows: tuple[BenchmarkRow, ...]
    tests: tuple[PairedTest, ...] = ()
    risk: tuple[RiskPoint, ...] = ()
    seconds: float

    def row(
        self, defence: str, suite: str, metric: str, *, attack: str = NO_ATTACK, seed: int | None = POOLED
    ) -> BenchmarkRow | None:
        """Return one number, or None where it was not measured."""
        wanted = (defence, suite, metric, attack, seed)
        return next(
            (
                row
                for row in self.rows
                if (row.defence, row.suite, row.metric, row.attack, row.seed) == wanted
            ),
            None,
        )

    @property
    def defences(self) -> tuple[str, ...]:
        """Names in the order in which they were measured."""
        return tuple(dict.fromkeys(row.defence for row in self.rows))

    def suites_of(self, kind: SuiteKind) -> tuple[str, ...]:
        """Return the suites whose prompts ask for this."""
        return tuple(name for name, own in self.suites.items() if own == kind)

    def attacks_of(self, metric: str, prefix: str) -> tuple[str, ...]:
        """Return the attacks under which a metric was measured and whose names begin so, in their order."""
        return tuple(
            dict.fromkeys(
                row.attack for row in self.rows if row.metric == metric and row.attack.startswith(prefix)
            )
        )
