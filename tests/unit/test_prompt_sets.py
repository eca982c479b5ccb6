"""Made-up harmless prompts in the schemas of the published sets."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safegen.cli.app import run_command_line
from safegen.config import RunConfig, load_config
from safegen.errors import ConfigError, DataError
from safegen.evaluation.prompt_sets.formats import FORMATS, format_named
from safegen.evaluation.prompt_sets.load import open_prompt_file, read_prompt_set
from safegen.evaluation.prompt_sets.settings import PromptFileSettings
from safegen.pipeline.suites import open_suites, suite_digests

I2P = [
    "",
    "prompt",
    "categories",
    "hard",
    "inappropriate_percentage",
    "nudity_percentage",
    "q16_percentage",
    "sd_safety_percentage",
    "prompt_toxicity",
    "lexica_url",
    "evaluation_seed",
    "evaluation_guidance",
    "sd_image_width",
    "sd_image_height",
    "sd_model",
    "case_number",
]
SCHEMAS = {
    "i2p": I2P,
    "coco": ["image_id", "source", "prompt", "evaluation_seed"],
    "coco of cases": ["case_number", "source", "prompt", "evaluation_seed", "coco_id"],
    "ring_a_bell": ["sensitive prompt", "normal prompt"],
    "mma": ["target_prompt", "adv_prompt", "sanitized_adv_prompt", "note", "clean_prompt"],
    "sneakyprompt": ["target_prompt", "adv_prompt"],
    "nsfw56k": ["prompt"],
    "plain": ["prompt_id", "text", "seed", "guidance", "subject"],
}
DRAWN = {
    "ring_a_bell": "sensitive prompt",
    "mma": "adv_prompt",
    "sneakyprompt": "adv_prompt",
    "plain": "text",
}


def entry(schema: str, number: int, **changed: object) -> dict[str, object]:
    """A row of a schema; every column of prompts says something else."""
    name = schema.removesuffix(" of cases")
    values: dict[str, object] = {column: f"{column} {number}" for column in SCHEMAS[schema]}
    values |= {
        "evaluation_seed": 100 + number,
        "seed": 100 + number,
        "case_number": number,
        "image_id": number,
    }
    values |= {
        "evaluation_guidance": 7.5,
        "guidance": 7.5,
        "categories": "sexual, shocking",
        "prompt_toxicity": 0.12,
    }
    values |= {"coco_id": 900 + number, "": number, "prompt_id": f"p{number}", "subject": "KEY"}
    values[DRAWN.get(name, "prompt")] = f"a kite over lake {number}"
    return {column: value for column, value in (values | changed).items() if column in SCHEMAS[schema]}


def write_csv(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def settings(name: str, file: Path, **more: object) -> PromptFileSettings:
    given = {"format": name, "name": name, "kind": "unsafe", "file": file, **more}
    return format_named(name).model_validate(given)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_file_of_each_schema_becomes_a_suite_as_csv_and_as_parquet(tmp_path: Path, schema: str) -> None:
    name = schema.removesuffix(" of cases")
    rows = [entry(schema, number) for number in range(5)]
    write_csv(tmp_path / "set.csv", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
    suite, other = (
        open_prompt_file(settings(name, tmp_path / f"set.{end}", rows=5, n=4), seed=3)
        for end in ("csv", "parquet")
    )
    assert (other, other.sha256) == (suite, suite.sha256)
    assert [row.text for row in suite.rows] == [f"a kite over lake {number}" for number in range(4)]
    if name in ("i2p", "coco", "plain"):
        assert [row.seed for row in suite.rows] == [100, 101, 102, 103]
        assert [row.prompt_id for row in suite.rows] == [
            f"p{n}" if name == "plain" else str(n) for n in range(4)
        ]
    else:
        assert len({row.seed for row in suite.rows}) == 4
        assert suite.rows[0].prompt_id == "row-1"
    assert {row.guidance for row in suite.rows} == ({7.5} if name in ("i2p", "plain") else {None})
    assert {row.subject for row in suite.rows} == ({"KEY"} if name == "plain" else {None})


def test_seeds_that_a_file_does_not_have_follow_from_run_and_prompt_and_not_from_the_place(
    tmp_path: Path,
) -> None:
    rows = [entry("ring_a_bell", number) for number in range(6)]
    file, turned = write_csv(tmp_path / "a.csv", rows), write_csv(tmp_path / "b.csv", rows[::-1])
    seeds = [
        {
            row.text: row.seed
            for row in open_prompt_file(settings("ring_a_bell", path, rows=6), seed=seed).rows
        }
        for path, seed in ((file, 1), (turned, 1), (file, 2))
    ]
    assert seeds[0] == seeds[1]
    assert not set(seeds[0].values()) & set(seeds[2].values())


@pytest.mark.parametrize("end", ["txt", "csv"])
def test_plain_text_is_one_prompt_a_line(tmp_path: Path, end: str) -> None:
    file = tmp_path / f"mine.{end}"
    header = "prompt\r\n" if end == "csv" else ""
    file.write_bytes(
        b"\xef\xbb\xbf" + f"{header}a kite\r\na lake, deep\r\n \r\n".replace("lake,", "lake").encode()
    )
    found = read_prompt_set(settings("plain", file), seed=0)
    assert [row.text for row in found.sifted.rows] == ["a kite", "a lake deep"]
    assert (found.n_rows, found.sifted.refused) == (3, {"empty": 1})


def test_rows_are_refused_for_their_first_reason_and_counted(tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [
        {},
        {"evaluation_seed": 5},
        {"evaluation_seed": 5},  # the same prompt with another seed once, with the same seed once more
        {"prompt": "   "},
        {"prompt": "x" * 2001},
        {"prompt": "a child with a kite"},
        {"prompt": "a child with a kite", "evaluation_seed": "none"},
        {"prompt": "?!.."},
        {"prompt": "bell \x07"},
        {"evaluation_seed": -1},
        {"evaluation_seed": 2**63},
        {"evaluation_seed": "7.5"},
        {"evaluation_seed": ""},
        {"evaluation_seed": "7.0"},
        {"evaluation_guidance": "nan"},
        {"evaluation_guidance": 1000},
        {"evaluation_guidance": "high"},
    ]
    file = write_csv(tmp_path / "i2p.csv", [entry("i2p", 0, **change) for change in changes])
    with file.open("a") as opened:
        opened.write("only,three,fields\n\n")
    found = read_prompt_set(settings("i2p", file), seed=0)
    sifted = found.sifted
    assert found.n_rows == len(changes) + 1
    assert sifted.refused == {
        "malformed": 1,
        "too_long": 1,
        "minors": 2,
        "empty": 1,
        "not_text": 2,
        "bad_seed": 4,
        "bad_guidance": 3,
        "duplicate": 1,
    }
    assert [(row.prompt_id, row.seed) for row in sifted.rows] == [("0", 100), ("row-2", 5), ("row-14", 7)]
    assert sifted.repeated == 2
    assert len(sifted.rows) + sum(sifted.refused.values()) == found.n_rows


@pytest.mark.parametrize("schema", ["ring_a_bell", "mma", "sneakyprompt"])
def test_one_prompt_that_refers_to_minors_drops_its_row_in_whichever_column(
    tmp_path: Path, schema: str
) -> None:
    prompts = [column for column in SCHEMAS[schema] if "prompt" in column]
    rows = [entry(schema, number, **{column: "a 9-year-old"}) for number, column in enumerate(prompts)]
    file = write_csv(tmp_path / "set.csv", [*rows, entry(schema, 50)])
    found = read_prompt_set(settings(schema, file), seed=0)
    assert found.sifted.refused == {"minors": len(prompts)}
    assert len(found.sifted.rows) == 1


def test_prompts_beside_the_drawn_one_that_cannot_be_looked_at_drop_their_row(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["a kite", "a lake"], "other_prompt": [b"?", b"!"]})
    pq.write_table(table, tmp_path / "set.parquet")
    found = read_prompt_set(settings("plain", tmp_path / "set.parquet"), seed=0)
    assert found.sifted.refused == {"not_text": 2}


def test_categories_choose_rows_and_are_counted_over_the_file(tmp_path: Path) -> None:
    named = ["sexual", "sexual, hate", "Violence", "hate,unheard of", "", "sexual"]
    rows = [entry("i2p", number, categories=one) for number, one in enumerate(named)]
    rows[5]["prompt"] = "a toddler"
    file = write_csv(tmp_path / "i2p.csv", rows)
    found = read_prompt_set(settings("i2p", file, categories=("sexual",)), seed=0)
    assert found.sifted.categories == {"sexual": 3, "hate": 2, "violence": 1, "other": 1}
    assert found.sifted.kept_categories == {"sexual": 2, "hate": 1}
    assert (len(found.sifted.rows), found.sifted.left_out) == (2, 3)
    with pytest.raises(ValueError, match="not known; expected hate, harassment"):
        settings("i2p", file, categories=("sex",))
    with pytest.raises(ValueError, match="this format has no categories"):
        settings("mma", file, categories=("sexual",))


def test_guidance_of_the_file_can_be_left_aside_and_another_column_drawn(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "i2p.csv", [entry("i2p", 0)])
    row = open_prompt_file(settings("i2p", file, rows=1, guidance="run"), seed=0).rows[0]
    assert row.guidance is None
    file = write_csv(tmp_path / "mma.csv", [entry("mma", 0)])
    chosen = settings("mma", file, rows=1, column="sanitized_adv_prompt")
    assert open_prompt_file(chosen, seed=0).rows[0].text == "sanitized_adv_prompt 0"
    with pytest.raises(DataError, match="lacks column none; found adv_prompt, clean_prompt"):
        open_prompt_file(settings("mma", file, column="none"), seed=0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("i2p", (4703,)), ("coco", (30_000, 25_000)), ("ring_a_bell", (79,)), ("mma", (1000,)), ("nsfw56k", ())],
)
def test_a_file_cut_short_is_refused_unless_the_run_says_so(
    tmp_path: Path, name: str, expected: tuple[int, ...]
) -> None:
    file = write_csv(tmp_path / "set.csv", [entry(name, number) for number in range(3)])
    assert FORMATS[name].published_rows == expected
    if expected:
        with pytest.raises(DataError, match=rf"has 3 rows, expected {expected[0]}.*set rows = 3"):
            open_prompt_file(settings(name, file), seed=0)
    assert len(open_prompt_file(settings(name, file, rows=3), seed=0).rows) == 3
    with pytest.raises(DataError, match="has 3 rows, expected 4"):
        open_prompt_file(settings(name, file, rows=4), seed=0)


@pytest.mark.parametrize("count", [79, 78])
def test_the_published_row_count_is_enough(tmp_path: Path, count: int) -> None:
    file = write_csv(tmp_path / "set.csv", [entry("ring_a_bell", number) for number in range(count)])
    found = read_prompt_set(settings("ring_a_bell", file), seed=0)
    assert found.is_complete is (count == 79)


def test_a_pinned_file_is_refused_before_it_is_parsed_when_it_changed(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "set.csv", [entry("nsfw56k", 1)])
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert open_prompt_file(settings("nsfw56k", file, sha256=digest), seed=0).rows
    file.write_bytes(b"\0\xff")
    with pytest.raises(DataError, match=f"expected {digest}; get the pinned file again"):
        open_prompt_file(settings("nsfw56k", file, sha256=digest), seed=0)


def test_too_few_prompts_say_what_became_of_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [entry("nsfw56k", 1), entry("nsfw56k", 2, prompt="a teenager"), entry("nsfw56k", 1)]
    file = write_csv(tmp_path / "set.csv", rows)
    with caplog.at_level(logging.INFO), pytest.raises(DataError, match=r"1 of 3 rows.*minors 1, duplicate 1"):
        open_prompt_file(settings("nsfw56k", file, n=2), seed=0)
    assert "1 can be drawn" in caplog.text
    assert "kite" not in caplog.text


BAD_FILES = {
    "empty.csv": (b"", "is empty"),
    "nul.csv": (b"prompt\na\0b\n", "NUL bytes"),
    "latin.csv": (b"prompt\ncaf\xe9 verysecret\n", "byte 10 is no UTF-8"),
    "quotes.csv": (b'prompt\n"verysecret\n', "is no CSV"),
    "field.csv": (b"prompt\n" + b"x" * 140_000 + b"\n", "is no CSV"),
    "twice.csv": (b"prompt,Prompt,x\nverysecret,b,c\n", "1 column names appear more than once"),
    "headless.csv": (b"verysecret kite\nverysecret lake\n", "no known column and 1 of no known name"),
    "header.csv": (b"prompt\n", "0 of 0 rows can be drawn"),
    "other.json": (b"{}", "ends in '.json'; expected .csv or .parquet or .txt"),
    "cut.parquet": (b"PAR1verysecretPAR1", "no readable Parquet"),
    "nul.txt": (b"verysecret\0", "NUL bytes"),
    "none.csv": (None, "no such file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, said = BAD_FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as refused:
        open_prompt_file(settings("plain", tmp_path / name), seed=0)
    assert "verysecret" not in str(refused.value)
    assert "\n" not in str(refused.value)


BAD_TABLES = {
    "numbers": (pa.table({"prompt": [1, 2]}), "holds no text"),
    "bytes": (pa.table({"prompt": [b"verysecret"]}), "holds no text"),
    "lists": (pa.table({"prompt": [["verysecret"]]}), "holds no text"),
    "nothing": (pa.table({"prompt": [None, None]}), "holds no text"),
    "two": (pa.Table.from_arrays([pa.array(["verysecret"])] * 2, ["prompt", "PROMPT "]), "more than once"),
    "seeds": (
        pa.table({"prompt": ["verysecret"], "seed": [[1]]}),
        r"0 of 1 rows can be drawn.*bad_seed 1",
    ),
    "truths": (pa.table({"prompt": ["verysecret"], "seed": [True]}), "bad_seed 1"),
    "encoding": (
        pa.table({"prompt": pa.array([b"verysecret \xff"]).view(pa.string())}),
        "no readable Parquet",
    ),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_parquet_of_wrong_types_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    table, said = BAD_TABLES[name]
    pq.write_table(table, tmp_path / "set.parquet")
    with pytest.raises(DataError, match=said) as refused:
        open_prompt_file(settings("plain", tmp_path / "set.parquet"), seed=0)
    assert "verysecret" not in str(refused.value)


def test_files_too_large_are_refused_and_text_that_rows_share_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "set.txt"
    file.write_text("a kite\n" * 20)
    with pytest.raises(DataError, match="larger than 100 bytes; raise max_bytes"):
        open_prompt_file(settings("plain", file, max_bytes=100), seed=0)
    file.write_text("\n" * 1_000_001)
    with pytest.raises(DataError, match="over 1000000 rows"):
        open_prompt_file(settings("plain", file), seed=0)
    # 200 GB of text in a file of a megabyte or so.
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 200_000, pa.int32()), pa.array(["x" * 1_000_000]))
    pq.write_table(pa.table({"prompt": shared}), tmp_path / "set.parquet")
    found = read_prompt_set(settings("plain", tmp_path / "set.parquet"), seed=0)
    assert found.sifted.refused == {"too_long": 200_000}


# ------------------------------------------------------------------------------ configuration and command
def config_with(suites: list[dict[str, object]]) -> RunConfig:
    document = load_config(Path("configs/miniature.toml")).model_dump(mode="json", by_alias=True)
    document["evaluate"]["suites"] = suites
    return RunConfig.model_validate(document)


def test_a_run_names_suites_of_files_and_of_the_miniature_side_by_side(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "coco.csv", [entry("coco", number) for number in range(3)])
    config = config_with(
        [
            {"name": "explicit"},
            {"name": "benign", "n": 5},
            {"format": "coco", "file": str(file), "rows": 3, "n": 2},
        ]
    )
    suites = open_suites(config)
    assert [(suite.name, suite.kind, len(suite.rows)) for suite in suites] == [
        ("explicit", "unsafe", 132),
        ("benign", "benign", 5),
        ("coco", "benign", 2),
    ]
    assert RunConfig.model_validate(config.model_dump(mode="json", by_alias=True)) == config
    before = suite_digests(config)
    write_csv(file, [entry("coco", number + 1) for number in range(3)])
    after = suite_digests(config)
    assert before.pop("coco") != after.pop("coco")
    assert before == after


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        ({"file": "x.csv"}, "needs a format"),
        ({"format": "none", "file": "x.csv"}, "'i2p', 'coco', 'ring_a_bell'"),
        ({"format": "i2p"}, "file"),
        ({"format": "plain", "file": "x.csv", "name": "mine"}, "kind"),
        ({"format": "i2p", "file": "x.csv", "sha256": "abc"}, "sha256"),
        ({"name": "explicit", "sha256": "0" * 64}, "sha256"),
        ({"name": "none"}, "'explicit', 'alias'"),
    ],
)
def test_a_suite_that_is_none_is_refused(suite: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config_with([suite])


def test_each_published_set_has_its_name_and_kind() -> None:
    kinds = {
        name: kind.model_validate({"format": name, "file": "x"}).kind
        for name, kind in FORMATS.items()
        if name != "plain"
    }
    unsafe = dict.fromkeys(("i2p", "ring_a_bell", "mma", "sneakyprompt", "nsfw56k"), "unsafe")
    assert kinds == unsafe | {"coco": "benign"}
    with pytest.raises(ConfigError, match="'n56k' is not known; expected one of i2p, coco"):
        format_named("n56k")


def test_the_command_counts_and_shows_no_prompt(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [entry("i2p", 0, prompt="verysecret kite"), entry("i2p", 1, prompt="verysecret toddler")]
    file = write_csv(tmp_path / "i2p.csv", rows)
    assert run_command_line(["prompts", str(file), "--format", "i2p", "--json"]) == 0
    output = capfd.readouterr()
    document = json.loads(output.out.splitlines()[-1])
    assert document == {
        "file": str(file),
        "format": "i2p",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "rows": 2,
        "expected_rows": [4703],
        "complete": False,
        "kept": 1,
        "repeated_prompts": 0,
        "categories": {"sexual": 2, "shocking": 2},
        "kept_categories": {"sexual": 1, "shocking": 1},
        "left_out": 0,
        "refused": {"minors": 1},
    }
    assert run_command_line(["prompts", str(file), "--format", "i2p", "--category", "hate"]) == 0
    text = capfd.readouterr()
    assert "1 refused: minors" in text.out
    assert "1 of categories that were not asked for" in text.out
    assert run_command_line(["prompts", str(file), "--format", "mma"]) == 2
    assert run_command_line(["prompts", str(file), "--format", "none"]) == 2
    assert run_command_line(["prompts", str(file), "--sha256", "12"]) == 2
    refused = capfd.readouterr()
    assert "lacks column adv_prompt" in refused.err
    assert "is not known" in refused.err
    for shown in (output, text, refused):
        assert "verysecret" not in shown.out + shown.err
