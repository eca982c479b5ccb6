from __future__ import annotations

import json
from pathlib import Path

from benchmarks.results import Comparison, machine, record


def test_a_comparison_replaces_the_earlier_one_of_its_name_and_leaves_others_alone(tmp_path: Path) -> None:
    for ours in (3.0, 6.0):
        record(
            "edit",
            Comparison(ours, 2.0, "triplets/s", 8),
            compared="A against B.",
            bar=">= 2",
            folder=tmp_path,
        )
    record(
        "scoring", Comparison(1.0, 4.0, "images/s", 9), compared="C against D.", bar=">= 1", folder=tmp_path
    )
    assert json.loads((tmp_path / "results.json").read_text()) == {
        "edit": {"ratio": 3.0, "ours": 6.0, "theirs": 2.0, "unit": "triplets/s", "n": 8},
        "scoring": {"ratio": 0.25, "ours": 1.0, "theirs": 4.0, "unit": "images/s", "n": 9},
    }
    page = (tmp_path / "RESULTS.md").read_text()
    assert page.count("## edit") == page.count("A against B.") == 1
    assert "| `edit` | 3 | 6 | 2 | triplets/s | 8 |" in page
    assert page.count(machine()) == 2
