"""Writes `benchmark.md` and its figures from a benchmark's document, and fills the numbers of another page from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from safegen.domain.benchmark import BenchmarkDocument, BenchmarkRow
from safegen.errors import DataError
from safegen.reporting.benchmark_charts import (
    figure,
    relearning_curves,
    risk_series,
    trade_off,
    worst_removal,
)
from safegen.reporting.benchmark_risk_table import risk_table
from safegen.reporting.wording import number_text

RISK_BEGIN, RISK_END = "<!-- adversarial prompts: begin -->", "<!-- adversarial prompts: end -->"
_SNEAKY = "sneaky"
_FIDELITY = ("kid", "fid", "clip_score", "perceptual_distance")
_NONE = "–"


def write_benchmark_page(document: BenchmarkDocument, folder: Path) -> list[Path]:
    """Write the page and its figures.

    Args:
        document: What the page shows.
        folder: Receives `benchmark.md` and `images/benchmark-….svg`; where it holds `adversarial-prompts.md`, the
            part of that page between its two markers is written anew.

    Returns:
        The files written.

    Raises:
        DataError: `adversarial-prompts.md` lacks a marker.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    figures = dict(_figures(document))
    written: list[Path] = []
    for name, svg in figures.items():
        written.append(images / f"benchmark-{name}.svg")
        written[-1].write_text(svg, encoding="utf-8")
    page = folder / "benchmark.md"
    page.write_text("\n".join(_page(document, list(figures))) + "\n", encoding="utf-8")
    written.append(page)
    risks = folder / "adversarial-prompts.md"
    if risks.is_file():
        _fill(risks, document)
        written.append(risks)
    return written


def read_document(path: Path) -> BenchmarkDocument:
    """Read a benchmark's document.

    Raises:
        DataError: It is missing or no such document.
    """
    try:
        return BenchmarkDocument.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = " ".join(str(error).split())[:200]
        raise DataError(f"cannot read {path}: {what}; run safegen benchmark first") from error


def _figures(document: BenchmarkDocument) -> Iterator[tuple[str, str]]:
    benign = _benign(document)
    points = trade_off(document, document.suites_of("unsafe"), benign) if benign else []
    if points:
        along = "change of benign subjects kept"
        title = "Removal on the worst suite against the change of benign subjects kept, 95 % intervals"
        yield "trade-off", figure(title, points, along=along, up="removal, worst suite", x_percent=True)
    for kind in _tunings(document):
        curves = relearning_curves(document, kind, document.explicit)
        yield (
            kind,
            figure(
                f"Removal after {kind}", curves, along="fine-tuning steps", up=f"removal, {document.explicit}"
            ),
        )
    for model in dict.fromkeys(("unedited", document.tested)):
        series = risk_series(document, model)
        if any(one.marks for one in series):
            title = f"Prompts by distance from explicit ones and by what {model} draws"
            along = "distance from the nearest explicit prompt (1 - cosine, CLIP text)"
            yield (
                f"risk-{model}",
                figure(title, series, along=along, up=f"detector's score, {model}", y_percent=False),
            )


def _tunings(document: BenchmarkDocument) -> list[str]:
    return list(dict.fromkeys(one.partition("@")[0] for one in document.attacks_of("nrr", "relearn-")))


def _page(document: BenchmarkDocument, figures: Sequence[str]) -> Iterator[str]:
    yield "# Benchmark: defences, suites, attacks"
    yield ""
    made = f"{document.created_utc:%Y-%m-%d} in {document.seconds / 60:.0f} minutes"
    yield f"Written by `safegen benchmark --page` from `benchmark.json`, which `{document.command}` made on"
    yield f"{made}. Numbers are over all seeds, with 95 % intervals; `benchmark.json` has each seed's as well."
    yield ""
    yield from (f"- {name.replace('_', ' ')}: {value}" for name, value in document.how.items())
    yield ""
    yield "## Removal and what it costs"
    yield ""
    yield "Removal (NRR) is against the unedited model on the same prompts and seeds. A refused prompt or a blacked-out"
    yield "picture counts as not drawn; its share stands in the last columns. `sneaky`: prompts found against that very"
    yield f"defence. Kept: asked subject drawn, change in points. p: worst suite against `{document.tested}`, exact"
    yield "sign-flip test over prompts, corrected by Holm for all tests of this document. In italics: acts on text."
    yield ""
    yield from _main_table(document)
    yield ""
    yield from _verdict(document)
    if "trade-off" in figures:
        yield from _image("trade-off", "Removal against fidelity")
    yield f"## Fidelity, suite {_benign(document)}"
    yield ""
    yield "FID is biased upwards at this number of pictures; KID leads. Both are on the pictures that are given."
    yield ""
    yield from _fidelity_table(document)
    yield ""
    yield "## Against the weights: concept inversion and relearning"
    yield ""
    yield "Whoever holds the weights leaves filters and guidance out, so only defences with weights of their own are"
    yield "here. Inversion is compared with the unedited model under the same attack, relearning with the unedited"
    yield "model as it is. Unsafe rates stand in `benchmark.json`."
    yield ""
    yield from _weights_table(document)
    yield ""
    for kind in _tunings(document):
        yield from _image(kind, f"Removal against steps, {kind}")
    yield "## Prompts found against others"
    yield ""
    yield from _transfer_table(document)
    yield ""
    yield "## All paired tests"
    yield ""
    yield from _test_table(document)


def _image(name: str, title: str) -> Iterator[str]:
    yield ""
    yield f"![{title}](images/benchmark-{name}.svg)"
    yield ""


def _main_table(document: BenchmarkDocument) -> Iterator[str]:
    unsafe, harmless, benign = document.suites_of("unsafe"), _harmless(document), _benign(document)
    head = ["defence", *(f"NRR {suite}" for suite in unsafe), "p, worst suite"]
    head += [f"{suite} kept" for suite in harmless]
    yield from _head([*head, f"refused, {benign}", f"blacked out, {benign}", "pictures/s"])
    for defence in document.defences:
        name = f"*{defence}*" if defence in document.text_dependent else defence
        cells = [_cell(_removal(document, defence, suite)) for suite in unsafe]
        cells.append(_worst_p(document, defence))
        cells += [_cell(document.row(defence, suite, "subject_kept_drop")) for suite in harmless]
        for metric in ("refused_rate", "blacked_out_rate"):
            cells.append(_cell(document.row(defence, benign, metric), ends=False))
        cells.append(_cell(_speed(document, defence), ends=False))
        yield _line([name, *cells])


def _fidelity_table(document: BenchmarkDocument) -> Iterator[str]:
    yield from _head(["defence", *(metric.replace("_", " ") for metric in _FIDELITY), "pairs"])
    for defence in document.defences:
        rows = [document.row(defence, _benign(document), metric) for metric in _FIDELITY]
        if any(rows):
            count = next((row.n for row in rows if row is not None), 0)
            yield _line([defence, *(_cell(row) for row in rows), str(count)])


def _weights_table(document: BenchmarkDocument) -> Iterator[str]:
    tunings = _tunings(document)
    last = {kind: document.attacks_of("nrr", f"{kind}@")[-1] for kind in tunings}
    yield from _head(
        [
            "defence",
            "NRR, inversion",
            *(f"NRR, {attack.replace('@', ' after ')} steps" for attack in last.values()),
        ]
    )
    for defence in document.defences:
        rows = [document.row(defence, "inverted", "nrr", attack="inversion")]
        rows += [document.row(defence, document.explicit, "nrr", attack=attack) for attack in last.values()]
        if any(rows):
            yield _line([defence, *(_cell(row) for row in rows)])


def _transfer_table(document: BenchmarkDocument) -> Iterator[str]:
    tested = document.tested
    yield f"What `{tested}` draws of prompts that were found against another defence, beside that defence itself."
    yield "Removal of targets counts what the unedited model draws from the prompts that the searches set out from; it"
    yield "can be computed where no model shows the concept for found prompts, and NRR cannot."
    yield ""
    columns = [
        "found against",
        "searches that succeeded",
        "queries",
        "unsafe, that defence",
        "removal of targets",
    ]
    yield from _head([*columns, f"unsafe, {tested}", f"NRR, {tested}"])
    for defence in document.defences:
        own = [
            document.row(defence, _SNEAKY, metric, attack="token-search")
            for metric in ("search_success_rate", "queries", "unsafe_rate", "nrr_of_targets")
        ]
        found = f"found against {defence}"
        theirs = [document.row(tested, _SNEAKY, metric, attack=found) for metric in ("unsafe_rate", "nrr")]
        if own[0] is not None:
            yield _line([defence, *(_cell(row) for row in (*own, *theirs))])


def _test_table(document: BenchmarkDocument) -> Iterator[str]:
    tested = document.tested
    yield from _head(
        ["defence", "suite", "counted", "its pictures", f"{tested}'s", "pairs", "prompts", "p", "p, Holm"]
    )
    for one in document.tests:
        counts = [one.count, one.tested_count, one.n, one.prompts]
        yield _line(
            [one.defence, one.suite, one.measure, *map(str, counts), f"{one.p:.2g}", f"{one.p_holm:.2g}"]
        )


def _verdict(document: BenchmarkDocument) -> Iterator[str]:
    unsafe = document.suites_of("unsafe")
    worst = {defence: worst_removal(document, defence, unsafe) for defence in document.defences}
    ours = worst.get(document.tested)
    if ours is None:
        return
    yield f"Worst suite of `{document.tested}`: {ours.suite}, {_cell(ours)}."
    best = max(
        (row for name in document.text_dependent if (row := worst.get(name)) is not None),
        key=lambda row: row.value or 0.0,
        default=None,
    )
    if best is not None:
        yield f"Best worst suite of a text-dependent defence: `{best.defence}` on {best.suite}, {_cell(best)}."
    yield ""


def _worst_p(document: BenchmarkDocument, defence: str) -> str:
    worst = worst_removal(document, defence, document.suites_of("unsafe"))
    found = [
        one
        for one in document.tests
        if worst is not None and (one.defence, one.suite, one.measure) == (defence, worst.suite, "unsafe")
    ]
    return f"{found[0].p_holm:.2g} ({found[0].suite})" if found else _NONE


def _harmless(document: BenchmarkDocument) -> tuple[str, ...]:
    return (*document.suites_of("benign"), *document.suites_of("lookalike"))


def _benign(document: BenchmarkDocument) -> str:
    """Return the suite that fidelity is shown on, empty where there is none."""
    return next(iter(_harmless(document)), "")


def _speed(document: BenchmarkDocument, defence: str) -> BenchmarkRow | None:
    rows = (row for row in document.rows if (row.defence, row.metric) == (defence, "images_per_second"))
    return next(rows, None)


def _removal(document: BenchmarkDocument, defence: str, suite: str) -> BenchmarkRow | None:
    attack = "token-search" if suite == _SNEAKY else "none"
    return document.row(defence, suite, "nrr", attack=attack)


def _cell(row: BenchmarkRow | None, *, ends: bool = True) -> str:
    """Write a number with its interval; what was not measured is a dash, what could not be computed says so."""
    if row is None:
        return _NONE
    if row.value is None:
        return f"not computed (n {row.n})"
    is_rate = row.metric.endswith("_rate") or row.metric.startswith("nrr")
    metric = "nrr" if is_rate else row.metric  # any rate is worded in percent
    text = number_text(metric, row.value)
    if not ends or row.low is None or row.high is None:
        return text
    low, high = (
        number_text(metric, end).removesuffix(" %").removesuffix(" points") for end in (row.low, row.high)
    )
    return f"{text} ({low} to {high})"


def _head(columns: Sequence[str]) -> list[str]:
    return [_line(columns), "|" + "---|" * len(columns)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _fill(page: Path, document: BenchmarkDocument) -> None:
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(RISK_BEGIN)
    _, end, after = rest.partition(RISK_END)
    if not begin or not end:
        raise DataError(
            f"{page} lacks the markers {RISK_BEGIN} and {RISK_END}; put them where numbers shall stand"
        )
    table = "\n".join(risk_table(document))
    page.write_text(f"{before}{RISK_BEGIN}\n\n{table}\n\n{RISK_END}{after}", encoding="utf-8")
