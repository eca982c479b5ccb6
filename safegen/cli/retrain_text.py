"""What a person reads of a retraining: a line a stage, and a summary in 80 columns."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from flows.stage import StageEvent
from safegen.pipeline.summary import PartialSummary, Summary


def show_stage(event: StageEvent) -> None:
    """Print a line when a stage begins or ends."""
    seconds = "" if event.state == "started" else f"  {event.seconds:.1f} s"
    print(f"safegen: {event.name:9} {event.state}{seconds}", file=sys.stderr, flush=True)


def summary_text(summary: Summary) -> str:
    """Return the summary of a run."""
    release = summary.release
    head = (
        f"promoted: {release.model} version {release.version}" if release else "blocked: nothing was released"
    )
    lines = [head, "", *_all_metrics(summary.metrics)]
    failed = [check for check in summary.decision["checks"] if not check["passed"]]
    lines += [f"failed: {check['name']}: {check['reason']}" for check in failed]
    lines += ["where to look", *(f"  {title}: {place}" for title, place in summary.where.items())]
    if release:
        lines.append(f"  release: {release.uri}")
    if summary.note:
        lines += ["", f"note: {summary.note}"]
    return "\n".join(lines)


def partial_text(summary: PartialSummary) -> str:
    """Return what the last stage of a run handed over; with metrics as in `summary_text`."""
    lines = [f"{summary.stage}: {'reused' if summary.stages[-1].reused else 'done'}", ""]
    for name, value in summary.result.items():
        if name == "metrics":
            lines += _all_metrics(value)
        elif isinstance(value, dict):
            lines += [f"  {name}:", *(f"    {part}: {found}" for part, found in value.items())]
        else:
            lines.append(f"  {name}: {value}")
    if summary.note:
        lines += ["", f"note: {summary.note}"]
    return "\n".join(lines)


def _all_metrics(metrics: Mapping[str, float]) -> list[str]:
    lines: list[str] = []
    for suite in sorted({name.split("/")[0] for name in metrics}):
        lines += [suite, *_metrics(suite, metrics), ""]
    return lines


def _metrics(suite: str, metrics: Mapping[str, float]) -> list[str]:
    lines: list[str] = []
    for name, value in metrics.items():
        if name.startswith(f"{suite}/") and not name.endswith(("_low", "_high")):
            low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
            interval = f"  [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
            lines.append(f"  {name.split('/')[1]:24} {value:9.3f}{interval}")
    return lines
