"""The rows behind a report (`results.parquet`): one per suite, prompt, seed and variant, with raw scores.

Thresholds can be swept over them later without generating again. Prompts appear as digests only. The gate
counts the rows again (`safegen.domain.recount`).
"""
# pyright: basic
# (pyarrow ships no types.)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from safegen.errors import DataError

RESULTS_FILE_NAME = "results.parquet"

RESULTS_SCHEMA = pa.schema(
    [
        pa.field("suite", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("prompt_sha256", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("variant", pa.string(), nullable=False),  # "base" | "candidate"
        pa.field("image_sha256", pa.string(), nullable=True),  # null where no image came out
        pa.field(
            "detections", pa.string(), nullable=False
        ),  # JSON list of {"label", "score", "box": [x, y, w, h]}
        pa.field("unscored", pa.bool_(), nullable=False),
        pa.field("unscored_reason", pa.string(), nullable=True),
        pa.field(
            "subject_kept", pa.bool_(), nullable=True
        ),  # null where the prompt names no subject to look for
    ]
)


def read_row_pairs(
    path: Path, columns: Sequence[str]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:  # Any: a row's columns differ in type
    """Yield the base's and the candidate's row of every suite, prompt and seed, in the file's order.

    Args:
        path: results.parquet.
        columns: Of `RESULTS_SCHEMA`, beyond suite, prompt_id, seed and variant, which are always read.

    Raises:
        DataError: The file is not Parquet, lacks a column, or its rows are not pairs.
    """
    halves: dict[tuple[str, str, int], dict[str, dict[str, Any]]] = {}
    for row in _read_rows(path, ("suite", "prompt_id", "seed", "variant", *columns)):
        pair = halves.setdefault((row["suite"], row["prompt_id"], row["seed"]), {})
        if row["variant"] not in ("base", "candidate") or row["variant"] in pair:
            raise DataError(
                f"cannot count {path}: prompt {row['prompt_id']} of {row['suite']} has a second or unknown "
                f"variant {row['variant']!r}; expected one base and one candidate for each seed"
            )
        pair[row["variant"]] = row
    for (suite, prompt_id, seed), pair in halves.items():
        if len(pair) != 2:
            raise DataError(
                f"cannot count {path}: prompt {prompt_id} of {suite}, seed {seed}, lacks a variant; "
                "expected one base and one candidate row"
            )
        yield pair["base"], pair["candidate"]


def _read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(path, columns=list(columns)).cast(
            pa.schema([RESULTS_SCHEMA.field(name) for name in columns])
        )
        table.validate(full=True)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(
            f"cannot read {path}: {' '.join(str(error).split())}; expected results.parquet"
        ) from error
    return table.to_pylist()
