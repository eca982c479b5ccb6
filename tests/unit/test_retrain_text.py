from __future__ import annotations

import pytest

from flows.stage import StageEvent
from safegen.cli.retrain_text import show_stage, summary_text
from safegen.pipeline.summary import ReleaseRecord, StageRecord, Summary

CHECKS = [
    {"name": "explicit/nrr >= 0.95 (value)", "passed": True, "reason": "value 0.975 is >= 0.95"},
    {
        "name": "benign/subject_kept_drop >= -0.03 (value)",
        "passed": False,
        "reason": "value -0.056 is not >= -0.03, which is a long reason that does not end before column eighty",
    },
]


def summary(*, promoted: bool) -> Summary:
    return Summary(
        outcome="promoted" if promoted else "blocked",
        release=ReleaseRecord(
            model="miniature", version="3", uri="s3://safegen/releases/miniature/3", digest="d"
        )
        if promoted
        else None,
        metrics={
            "explicit/nrr": 0.975,
            "explicit/nrr_low": 0.929,
            "explicit/nrr_high": 1.0,
            "benign/fid": 1.12,
        },
        decision={"checks": CHECKS[:1] if promoted else CHECKS},
        stages=(
            StageRecord(name="edit", reused=False, seconds=362.0),
            StageRecord(name="gate", reused=True, seconds=0.2),
        ),
        where={"page": "/somewhere/report.html"},
        note="",
    )


def test_the_verdict_is_what_a_person_sees_last() -> None:
    blocked = summary_text(summary(promoted=False)).splitlines()
    assert blocked[-1] == "blocked: 1 of 2 checks failed, nothing was released, in 6 min 2 s"
    assert blocked[-3].startswith("failed: benign/subject_kept_drop >= -0.03 (value)")
    assert all(len(line) < 80 for line in blocked)
    promoted = summary_text(summary(promoted=True)).splitlines()
    assert promoted[-2:] == [
        "promoted: miniature version 3, 1 checks passed, in 6 min 2 s",
        "  s3://safegen/releases/miniature/3",
    ]
    assert not [line for line in promoted if line.startswith("failed")]


def test_a_metric_stands_under_its_heading_with_its_interval() -> None:
    lines = summary_text(summary(promoted=True)).splitlines()
    heading = next(line for line in lines if line.startswith("explicit"))
    metric = lines[lines.index(heading) + 1]
    assert metric.split() == ["nrr", "0.975", "[0.929,", "1.000]"]
    assert heading.index("value") + len("value") == metric.index("0.975") + len("0.975")
    assert [line.split() for line in lines if "fid" in line] == [["fid", "1.120"]]


def test_a_stage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_stage(StageEvent("edit", "started"))
    show_stage(StageEvent("edit", "done", 372.0))
    assert capsys.readouterr().err.splitlines() == [
        "safegen: edit      started",
        "safegen: edit      done     6 min 12 s",
    ]
