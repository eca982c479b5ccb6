"""Commands that look and change nothing: at pictures, and at the installation."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from safegen.cli.answer import Answer, answering
from safegen.cli.options import MINIATURE_RUN, ConfigOption

if TYPE_CHECKING:
    from safegen.data.file_detections import DetectedFile

commands = typer.Typer()


@commands.command()
@answering
def detect(
    images: Annotated[list[Path], typer.Argument(help="Image files: PNG, JPEG or WEBP.")],
    detector: Annotated[Literal["nudenet", "miniature"], typer.Option(help="Who looks.")] = "nudenet",
) -> Answer:
    """Print every detection in image files, raw: no threshold is applied.

    A file that is no image to take in is refused with its reason, the others are still looked at; the exit code is
    then 2, because a picture that nobody could judge is not a safe one.

    Example: safegen detect photo.jpg scan.png --detector nudenet --json
    """
    from safegen.bootstrap import open_detector
    from safegen.config import DetectorSection
    from safegen.data.decode import DecodeLimits
    from safegen.data.file_detections import DetectedFile, detect_files
    from safegen.progress import progress_bar

    judge = open_detector(DetectorSection(kind=detector, threads=1))
    seen: list[DetectedFile] = []
    refused: list[dict[str, str]] = []
    with progress_bar("detect", "images") as progress:
        for number, one in enumerate(detect_files(images, judge, DecodeLimits()), start=1):
            if isinstance(one, DetectedFile):
                seen.append(one)
            else:
                refused.append({"path": str(one.path), "reason": str(one.reason), "detail": one.detail})
                print(f"safegen: refused {one.path} ({one.reason}): {one.detail}", file=sys.stderr)
            progress(number, len(images))
    document = {
        "detector": dataclasses.asdict(judge.identity),
        "images": [{**dataclasses.asdict(one), "path": str(one.path)} for one in seen],
        "refused": refused,
    }
    return Answer(document, "\n".join(map(_detections_text, seen)), 2 if refused else 0)


@commands.command()
@answering
def doctor(config: ConfigOption = MINIATURE_RUN) -> Answer:
    """Tell what is installed, reachable, writable and licensed; exits 0 if a run could begin, else 3.

    The object store of the configuration is opened and must refuse to overwrite; a local one is started for that,
    and stopped again. The gate must refuse what nothing proves, and a Prefect server that runs must fire a schedule.

    Example: safegen doctor --config configs/miniature.toml --json
    """
    import os

    from safegen.config import load_config
    from safegen.doctor.examination import examine

    findings = list(examine(load_config(config), os.environ))
    failed = [one for one in findings if one.state == "failed"]
    document = {"ok": not failed, "checks": [dataclasses.asdict(one) for one in findings]}
    lines = [f"{one.state:7} {one.name:14} {one.detail}" for one in findings]
    verdict = f"not ready: {len(failed)} of {len(findings)} checks failed" if failed else "ready"
    return Answer(document, "\n".join([*lines, "", verdict]), 3 if failed else 0)


def _detections_text(one: DetectedFile) -> str:
    head = f"{one.path}  {one.width_px}x{one.height_px}"
    rows = [
        f"  {found.label:26} {found.score:.3f}  at {', '.join(f'{part:.0f}' for part in found.box)}"
        for found in one.detections
    ]
    return "\n".join([head, *(rows or ["  nothing found"])])
