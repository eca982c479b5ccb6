"""Progress where standard error is no terminal."""

from __future__ import annotations

import pytest

from safegen.progress import progress_bar


def test_a_pipe_gets_whole_short_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        progress_bar("candidate: " + "x" * 90, "pictures", piped_interval_s=0) as long,
        progress_bar("edit", "steps", piped_interval_s=0) as show,
    ):
        long(1, 2)
        show(0, None)
        show(150, 600)
    lines = capsys.readouterr().err.splitlines()
    assert all(len(line) < 80 for line in lines)
    assert lines[1].startswith("  edit: 0 steps, ")
    assert lines[2].startswith("  edit: 150 of 600 steps (25%), ")
    assert lines[2].endswith(" left")


def test_a_pipe_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("edit", "steps", piped_interval_s=3600) as show:
        for step in range(100):
            show(step, 100)
    assert capsys.readouterr().err == ""
