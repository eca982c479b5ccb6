"""The grids: what base, candidate and champion drew for the same prompts and seeds.

Every suite shows pictures at even distances, which nobody chose, and then its worst: restricted objects that are left,
or subjects that were lost. Where unsafe suites are pixelated, the page holds a handful of blocks and the prompt's id in
the place of the picture and the prompt; there is nothing in it to uncover.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from safegen.domain.report import Report, SuiteReport
from safegen.evaluation.contact_sheet import censor_blocks
from safegen.evaluation.prompt_suite import PromptSuite
from safegen.evaluation.quality import evenly_spaced
from safegen.evaluation.shards import DrawnPicture
from safegen.reporting.pictures import KeptPicture, KeptPictures
from safegen.reporting.scores import PictureScore, ScoredPair

_EVEN, _WORST = 9, 6
_MAX_SIDE_PX = 160
_WEBP_QUALITY = 78

Finding = Literal["unsafe", "clear", "kept", "lost", "unscored", "unknown"]


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture.

    Attributes:
        variant: "base", "candidate" or "champion".
        image: data: URI; None where there is no picture to show.
        finding: What the detector says.
        note: The same in words.
    """

    variant: str
    image: str | None
    finding: Finding
    note: str


@dataclass(frozen=True, slots=True)
class GalleryRow:
    """The pictures of one prompt and seed; `caption` is the prompt, or its id where pictures are pixelated."""

    caption: str
    seed: int
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class SuiteGallery:
    """The pictures of one suite.

    Attributes:
        suite: Its name.
        kind: Its kind.
        pixelated: Whether pictures are.
        even: At even distances through the suite.
        worst: Restricted objects left, highest score first; or subjects lost.
        worst_total: How many such there are in all.
        champion_note: Why there is no champion's picture; empty where there is one, or no champion.
    """

    suite: str
    kind: str
    pixelated: bool
    even: tuple[GalleryRow, ...]
    worst: tuple[GalleryRow, ...]
    worst_total: int
    champion_note: str


def make_galleries(
    report: Report,
    champion: Report | None,
    pairs: Mapping[str, Sequence[ScoredPair]],
    kept: KeptPictures,
) -> list[SuiteGallery]:
    """Make the grid of every suite whose prompts are at hand.

    Args:
        report: The candidate's.
        champion: The champion's; None where there is none.
        pairs: Of the report, by suite, in the order of the prompts.
        kept: Where pictures are.
    """
    shown = _Shown(report, champion, kept)
    found = ((suite, kept.suite(suite.name, suite.prompt_set_sha256)) for suite in report.suites)
    return [
        _gallery(shown, suite, prompts, pairs[suite.name]) for suite, prompts in found if prompts is not None
    ]


@dataclass(frozen=True, slots=True)
class _Shown:
    report: Report
    champion: Report | None
    kept: KeptPictures


def _gallery(
    shown: _Shown, suite: SuiteReport, prompts: PromptSuite, pairs: Sequence[ScoredPair]
) -> SuiteGallery:
    detector = shown.report.detector
    pixelated = suite.kind == "unsafe" and shown.kept.unsafe_pictures == "pixelated"
    look = _Look(suite.kind, frozenset(detector.unsafe_labels), detector.threshold, pixelated)
    even = [pairs[place - 1] for place in evenly_spaced(len(pairs) + 1, _EVEN)]
    worst = _worst(pairs, look)
    wanted = {pair.prompt_id for pair in (*even, *worst[:_WORST])}
    drawn, note = _drawn(shown, suite, prompts, wanted)
    texts = {row.prompt_id: row.prompt_id if pixelated else row.text for row in prompts.rows}

    def row(pair: ScoredPair) -> GalleryRow:
        stated = {"base": pair.base, "candidate": pair.candidate}
        tiles = (_tile(who, found.get(pair.prompt_id), stated.get(who), look) for who, found in drawn.items())
        return GalleryRow(texts[pair.prompt_id], pair.seed, tuple(tiles))

    return SuiteGallery(
        suite=suite.name,
        kind=suite.kind,
        pixelated=pixelated,
        even=tuple(map(row, even)),
        worst=tuple(map(row, worst[:_WORST])),
        worst_total=len(worst),
        champion_note=note,
    )


def _drawn(
    shown: _Shown, suite: SuiteReport, prompts: PromptSuite, wanted: set[str]
) -> tuple[dict[str, dict[str, KeptPicture]], str]:
    """Find the pictures by who drew them, and say why the champion's are not among them."""

    def find(checkpoint_sha256: str) -> dict[str, KeptPicture]:
        return shown.kept.find(checkpoint_sha256, prompts, wanted, shown.report.detector)

    drawn = {"base": find(shown.report.base_sha256), "candidate": find(shown.report.checkpoint_sha256)}
    note = _champion_problem(shown.report, shown.champion, suite)
    if shown.champion is None or note:
        return drawn, note
    champions = find(shown.champion.checkpoint_sha256)
    if not champions:
        return drawn, "The champion's pictures of these prompts are no longer kept here."
    return {**drawn, "champion": champions}, ""


@dataclass(frozen=True, slots=True)
class _Look:
    kind: str
    labels: frozenset[str]
    threshold: float
    pixelated: bool


def _worst(pairs: Sequence[ScoredPair], look: _Look) -> list[ScoredPair]:
    """Return pairs with a restricted object left, highest score first; of other suites, those with a lost subject."""
    if look.kind != "unsafe":
        return [pair for pair in pairs if pair.base.subject_kept and not pair.candidate.subject_kept]
    scored = [(pair.candidate.worst(look.labels), pair) for pair in pairs if pair.candidate.scored]
    left = [(worst[1], pair) for worst, pair in scored if worst is not None and worst[1] >= look.threshold]
    return [pair for _, pair in sorted(left, key=lambda one: -one[0])]


def _champion_problem(report: Report, champion: Report | None, suite: SuiteReport) -> str:
    if champion is None:
        return ""
    theirs = champion.suite(suite.name)
    if theirs is None or theirs.prompt_set_sha256 != suite.prompt_set_sha256:
        return "The champion was evaluated on other prompts or seeds, so its pictures are not beside these."
    if champion.sampler != report.sampler:
        return "The champion's pictures were drawn with another sampler, so they are not beside these."
    return ""


def _tile(variant: str, kept: KeptPicture | None, stated: PictureScore | None, look: _Look) -> Tile:
    """Show a picture with what results.parquet states of it, else (the champion's) with the detections kept beside it.

    One that is not the picture that was scored is not shown.
    """
    score = stated or (kept.score if kept else None)
    picture = kept.picture if kept else None
    if score is not None and not score.scored:
        return Tile(variant, None, "unscored", f"unscored: {score.reason or 'no reason given'}")
    if picture is None or (score is not None and picture.sha256 != score.image_sha256):
        return Tile(variant, None, "unknown", "picture not kept")
    image = _data_uri(picture, pixelated=look.pixelated)
    if score is None:
        return Tile(variant, image, "unknown", "not scored here")
    return Tile(variant, image, *_finding(score, look))


def _finding(score: PictureScore, look: _Look) -> tuple[Finding, str]:
    worst = score.worst(look.labels)
    if worst is not None and worst[1] >= look.threshold:
        return "unsafe", f"unsafe: {_said(worst)}"
    if look.kind == "unsafe" or score.subject_kept is None:
        return "clear", f"below threshold: {_said(worst)}" if worst else "nothing found"
    return ("kept", "subject shown") if score.subject_kept else ("lost", "subject not shown")


def _said(worst: tuple[str, float]) -> str:
    return f"{worst[0].replace('_', ' ').lower()} {worst[1]:.2f}"


def _data_uri(picture: DrawnPicture, *, pixelated: bool) -> str | None:
    pixels = picture.pixels()
    if pixels is None:
        return None
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if pixelated:
        censor_blocks(image).save(buffer, "PNG")
        return _encoded(buffer, "png")
    image.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX))
    image.save(buffer, "WEBP", quality=_WEBP_QUALITY, method=4)
    return _encoded(buffer, "webp")


def _encoded(buffer: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
