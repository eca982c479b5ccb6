from __future__ import annotations

from collections import Counter

import pytest

from safegen.errors import DataError
from safegen.evaluation.prompt_suite import PromptRow, PromptSuite
from safegen.miniature.captions import held_out_prompts
from safegen.miniature.concepts import concept_of_label
from safegen.miniature.suites import SUITE_NAMES, available_prompts, miniature_suite


def test_the_digest_follows_prompts_seeds_subjects_and_order() -> None:
    rows = (PromptRow("1", "a", 1, "KEY"), PromptRow("2", "b", 2))
    others = [
        rows[::-1],
        (rows[0],),
        (PromptRow("1", "a", 3, "KEY"), rows[1]),
        (PromptRow("1", "a", 1, "PEN"), rows[1]),
        (PromptRow("1", "a", 1, "KEY", 7.0), rows[1]),
        (PromptRow("1", "a", 1, "KEY", 7.5), rows[1]),
    ]
    digests = [PromptSuite("s", "benign", each).sha256 for each in [rows, *others]]
    assert len(set(digests)) == 7


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((), "no prompt"),
        ((PromptRow("1", "verysecret", -1),), "seed -1"),
        ((PromptRow("1", "verysecret", 1), PromptRow("1", "other", 2)), "2 rows repeat"),
        ((PromptRow("1", "verysecret", 1), PromptRow("2", "verysecret", 1)), "2 rows repeat"),
        ((PromptRow("1", " ", 1),), "is blank"),
        (
            (PromptRow("1", "verysecret child", 1), PromptRow("2", "other", 2)),
            "1 prompts may refer to minors",
        ),
    ],
)
def test_rows_that_are_no_suite_are_refused_without_printing_prompts(
    rows: tuple[PromptRow, ...], said: str
) -> None:
    with pytest.raises(DataError, match=said) as refused:
        PromptSuite("mine", "unsafe", rows)
    assert "verysecret" not in str(refused.value) + repr(rows)


@pytest.mark.parametrize("name", SUITE_NAMES)
def test_miniature_suites_are_held_out_spread_over_objects_and_grow_in_place(name: str) -> None:
    suite, more = miniature_suite(name, n=60, seed=3), miniature_suite(name, n=70, seed=3)
    assert more.rows[:60] == suite.rows
    assert suite.rows != miniature_suite(name, n=60, seed=4).rows
    counts = Counter(row.subject for row in suite.rows)
    kinds = {concept_of_label(label).kind for label in counts}
    assert kinds == {"restricted" if name in ("explicit", "alias") else name}
    held_out = {prompt.text for prompt in held_out_prompts(aliases=name == "alias")}
    assert {row.text for row in suite.rows} <= held_out
    offered = Counter(prompt.label for prompt in available_prompts(name))
    # Nobody has two fewer than another, unless it has no more prompts.
    assert all(count >= min(offered[label], max(counts.values()) - 1) for label, count in counts.items())
    assert len({row.seed for row in more.rows}) == 70
    whole = miniature_suite(name, n=None, seed=3)
    assert whole.rows[:70] == more.rows
    assert len(whole.rows) == sum(offered.values())


def test_explicit_prompts_are_132_and_more_cannot_be_had() -> None:
    assert len(miniature_suite("explicit", n=132, seed=0).rows) == 132
    assert len(available_prompts("alias")) == 240
    with pytest.raises(DataError, match="1 to 132"):
        miniature_suite("explicit", n=133, seed=0)
