"""Whatever a file holds: a loader returns or raises a DataError, and no prompt gets into a message or a log."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from safegen.errors import DataError
from safegen.evaluation.prompt_sets.formats import FORMATS
from safegen.evaluation.prompt_sets.load import open_prompt_file
from safegen.evaluation.prompt_sets.settings import PromptFileSettings
from safegen.evaluation.prompt_suite import PromptSuite

CANARY = "zqcanaryqz"
MANY = hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

names = st.sampled_from(sorted(FORMATS))
known = st.sampled_from(sorted({column for kind in FORMATS.values() for column in kind.columns.names}))
headers = st.lists(st.one_of(known, st.just(f"{CANARY} kite"), st.text(max_size=8)), min_size=1, max_size=6)
cells = st.one_of(
    st.text(max_size=20).map(lambda text: f"{CANARY} {text}"),
    st.sampled_from(
        ["", "7", "7.5", "-1", "nan", f"{CANARY} child", f'"{CANARY}', f"{CANARY}\n{CANARY}", "9" * 5000]
    ),
)


def opened(made: PromptFileSettings) -> PromptSuite | DataError:
    try:
        return open_prompt_file(made, seed=1)
    except DataError as error:
        return error


def shown_by(error: BaseException | None) -> str:
    """What a traceback shows of an error and its causes."""
    if error is None:
        return ""
    further = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return f"{error}|{shown_by(further)}"


def load_quietly(file: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    given_settings = {"format": name, "name": name, "kind": "unsafe", "file": file}
    caplog.clear()
    for more in ({}, {"rows": 3}, {"n": 2}):
        with caplog.at_level(logging.DEBUG):
            result = opened(FORMATS[name].model_validate({**given_settings, **more}))
        shown = shown_by(result) if isinstance(result, DataError) else repr(result)
        assert CANARY not in shown + caplog.text
        assert "\n" not in shown


@MANY
@given(name=names, header=headers, rows=st.lists(st.lists(cells, max_size=6), max_size=5))
def test_any_table_of_text(
    name: str, header: list[str], rows: list[list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "set.csv"
    lines = [",".join(header), *(",".join(row) for row in rows)]
    file.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    load_quietly(file, name, caplog)


@MANY
@given(name=names, end=st.sampled_from(["csv", "txt", "parquet", "CSV"]), data=st.binary(max_size=200))
@example(name="plain", end="csv", data=b"prompt\n\xff")
@example(name="plain", end="parquet", data=b"PAR1" + bytes(20) + b"PAR1")
def test_any_bytes(
    name: str, end: str, data: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / f"set.{end}"
    file.write_bytes(data)
    load_quietly(file, name, caplog)


columns = st.one_of(
    st.lists(st.one_of(st.none(), cells), min_size=3, max_size=3).map(lambda one: pa.array(one, pa.string())),
    st.just(pa.array([f"{CANARY} a", None, f"{CANARY} b"]).dictionary_encode()),
    st.lists(st.integers(-5, 2**63 - 1), min_size=3, max_size=3).map(pa.array),
    st.lists(st.floats(), min_size=3, max_size=3).map(pa.array),
    st.just(pa.array([CANARY.encode()] * 3)),
    st.just(pa.array([f"{CANARY}\xff".encode("latin-1")] * 3).view(pa.string())),
    st.just(pa.array([[CANARY]] * 3)),
    st.just(pa.array([{CANARY: CANARY}] * 3)),
    st.just(pa.array([True, None, False])),
    st.just(pa.nulls(3)),
)


@MANY
@given(
    name=names,
    table=st.lists(st.tuples(st.one_of(known, st.just(f"{CANARY} kite")), columns), min_size=1, max_size=6),
    damage=st.one_of(st.none(), st.tuples(st.integers(0, 10_000), st.integers(0, 255))),
)
def test_any_parquet_whole_or_damaged(
    name: str,
    table: list[tuple[str, pa.Array]],
    damage: tuple[int, int] | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "set.parquet"
    pq.write_table(pa.Table.from_arrays([column for _, column in table], [title for title, _ in table]), file)
    data = bytearray(file.read_bytes())
    if damage is not None:
        data[damage[0] % len(data)] = damage[1]
    file.write_bytes(data)
    load_quietly(file, name, caplog)
