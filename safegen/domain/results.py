"""The rows behind a report (`results.parquet`): one per suite, prompt, seed and variant, with raw detector scores.

Thresholds can be swept over them later without generating again. Prompts appear as digests only.
"""

from __future__ import annotations

import pyarrow as pa

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
