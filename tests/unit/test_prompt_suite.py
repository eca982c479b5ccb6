from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safegen.errors import DataError
from safegen.evaluation.prompt_suite import PromptRow, PromptSuite, read_prompt_suite
from safegen.miniature.captions import held_out_prompts
from safegen.miniature.concepts import concept_of_label
from safegen.miniature.suites import SUITE_NAMES, available_prompts, miniature_suite

CSV = 'prompt_id,text,seed,subject\n1,"one, two",7,KEY\n2,three,8,\n'


def test_csv_and_parquet_of_the_same_rows_are_the_same_suite(tmp_path: Path) -> None:
    (tmp_path / "suite.csv").write_text(CSV)
    suite = read_prompt_suite(tmp_path / "suite.csv", name="mine", kind="benign")
    assert suite.rows == (PromptRow("1", "one, two", 7, "KEY"), PromptRow("2", "three", 8, None))
    columns = {
        "prompt_id": ["1", "2"],
        "text": ["one, two", "three"],
        "seed": [7, 8],
        "subject": ["KEY", None],
    }
    pq.write_table(pa.table(columns), tmp_path / "suite.parquet")
    other = read_prompt_suite(tmp_path / "suite.parquet", name="mine", kind="benign")
    assert (other, other.sha256) == (suite, suite.sha256)


def test_the_digest_follows_prompts_seeds_subjects_and_order() -> None:
    rows = (PromptRow("1", "a", 1, "KEY"), PromptRow("2", "b", 2))
    others = [
        rows[::-1],
        (rows[0],),
        (PromptRow("1", "a", 3, "KEY"), rows[1]),
        (PromptRow("1", "a", 1, "PEN"), rows[1]),
    ]
    digests = [PromptSuite("s", "benign", each).sha256 for each in [rows, *others]]
    assert len(set(digests)) == 5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("prompt_id,text,seed\n", "no prompt"),
        ("prompt_id,text\n1,verysecret\n", "lacks column seed"),
        ("prompt_id,text,seed\n1,verysecret,x\n", "cannot be read"),
        ("prompt_id,text,seed\n1,verysecret,\n", "row 1 lacks"),
        ("prompt_id,text,seed\n1,verysecret,-1\n", "seed -1"),
        ("prompt_id,text,seed\n1,verysecret,1\n1,other,2\n", "2 rows repeat"),
        ("prompt_id,text,seed\n1,verysecret,1\n2,verysecret,1\n", "2 rows repeat"),
        ('prompt_id,text,seed\n1," ",1\n', "is blank"),
    ],
)
def test_a_file_that_is_no_suite_is_refused_without_printing_prompts(
    tmp_path: Path, content: str, said: str
) -> None:
    path = tmp_path / "suite.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=said) as refused:
        read_prompt_suite(path, name="mine", kind="unsafe")
    assert "verysecret" not in str(refused.value)
    assert "verysecret" not in repr(PromptRow("1", "verysecret", 1))


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


def test_explicit_prompts_are_132_and_more_cannot_be_had() -> None:
    assert len(miniature_suite("explicit", n=132, seed=0).rows) == 132
    assert len(available_prompts("alias")) == 240
    with pytest.raises(DataError, match="1 to 132"):
        miniature_suite("explicit", n=133, seed=0)
