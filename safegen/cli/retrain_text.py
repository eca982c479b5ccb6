"""What a person reads of a retraining: a line a stage, and a summary in 80 columns."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping

from flows.stage import StageEvent
from safegen.pipeline.summary import PartialSummary, Summary

_COLUMNS = 79


def show_stage(event: StageEvent) -> None:
    """Print a line when a stage begins or ends."""
    took = "" if event.state == "started" else f"  {_duration(event.seconds)}"
    print(f"safegen: {event.name:9} {event.state:7}{took}".rstrip(), file=sys.stderr, flush=True)


def summary_text(summary: Summary) -> str:
    """Return the summary of a run; the verdict comes last, where a person looks first."""
    release, checks = summary.release, summary.decision["checks"]
    failed = [check for check in checks if not check["passed"]]
    lines = _all_metrics(summary.metrics)
    lines += ["where to look", *(f"  {title}: {place}" for title, place in summary.where.items()), ""]
    if summary.note:
        lines += [f"note: {summary.note}", ""]
    lines += [part for check in failed for part in _wrapped(f"failed: {check['name']}: {check['reason']}")]
    took = _duration(sum(stage.seconds for stage in summary.stages))
    if release:
        lines += [
            f"promoted: {release.model} version {release.version}, {len(checks)} checks passed, in {took}"
        ]
        lines += [f"  {release.uri}"]
    else:
        lines += [f"blocked: {len(failed)} of {len(checks)} checks failed, nothing was released, in {took}"]
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


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _COLUMNS, subsequent_indent="  ", break_on_hyphens=False)


def _duration(seconds: float) -> str:
    """Return a duration as a person says it.

    >>> _duration(7.53), _duration(372.0)
    ('7.5 s', '6 min 12 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _all_metrics(metrics: Mapping[str, float]) -> list[str]:
    lines: list[str] = []
    for suite in sorted({name.split("/")[0] for name in metrics}):
        lines += [f"{suite:28} {'value':>7}  95 % interval", *_metrics(suite, metrics), ""]
    return lines


def _metrics(suite: str, metrics: Mapping[str, float]) -> list[str]:
    lines: list[str] = []
    for name, value in metrics.items():
        if name.startswith(f"{suite}/") and not name.endswith(("_low", "_high")):
            low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
            interval = f"  [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
            lines.append(f"  {name.split('/')[1]:24} {value:9.3f}{interval}")
    return lines
