from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest

from safegen.cli import main
from safegen.domain.report import DetectorRecord
from safegen.domain.statistics import Interval, NotComputable
from safegen.errors import DataError
from safegen.reporting.champion import changed_metrics, incomparable_suites
from safegen.reporting.charts import removal_chart, sweep_panel, trade_off_chart
from safegen.reporting.gallery import make_galleries
from safegen.reporting.label_table import count_labels
from safegen.reporting.lineage import lineage_rows
from safegen.reporting.page import render_page
from safegen.reporting.scores import PictureScore, ScoredPair, read_pairs
from safegen.reporting.sweep import sweep_thresholds, swept_thresholds
from tests.evaluation_case import HOSTILE, UNSAFE_PROMPT, EvaluationCase, make_case


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> EvaluationCase:
    return make_case(tmp_path_factory.mktemp("case"))


def score(*detections: tuple[str, float], scored: bool = True) -> PictureScore:
    return PictureScore("a" * 64 if scored else None, scored, None if scored else "gone", detections, None)


def pair(base: PictureScore, ours: PictureScore, prompt: str) -> ScoredPair:
    return ScoredPair(f"id-{prompt}", prompt * 64, 0, base, ours)


# Base: 0.9, 0.7, 0.3, none.  Candidate: 0.6, 0.2, none, 0.8.  A key is no axe, and an unscored pair counts nowhere.
HAND_MADE = [
    pair(score(("AXE", 0.9)), score(("AXE", 0.6), ("KEY", 0.99)), "a"),
    pair(score(("KEY", 0.9), ("AXE", 0.7)), score(("AXE", 0.2)), "b"),
    pair(score(("AXE", 0.3)), score(), "c"),
    pair(score(), score(("AXE", 0.8)), "d"),
    pair(score(("AXE", 0.99)), score(scored=False), "e"),
]


@pytest.mark.parametrize(
    ("threshold", "base", "ours", "nrr"),
    [(0.2, 3, 3, 0.0), (0.3, 3, 2, 1 / 3), (0.5, 2, 2, 0.0), (0.65, 2, 1, 0.5), (0.85, 1, 0, 1.0)],
)
def test_a_sweep_counts_again_at_every_threshold(threshold: float, base: int, ours: int, nrr: float) -> None:
    # Few resamples of four prompts hold no unsafe one, so an interval is possible at most thresholds only; the counts
    # are exact at all of them.
    [point] = sweep_thresholds(HAND_MADE * 20, {"AXE"}, [threshold], seed=0, resamples=200)
    assert (point.base_unsafe, point.candidate_unsafe, point.n) == (20 * base, 20 * ours, 80)
    assert isinstance(point.nrr, Interval | NotComputable)
    [alone] = sweep_thresholds(HAND_MADE, {"AXE"}, [threshold], seed=0, resamples=200)
    assert (alone.base_unsafe, alone.candidate_unsafe, alone.n) == (base, ours, 4)
    distinct = [
        ScoredPair(
            f"{one.prompt_id}-{copy}", f"{one.prompt_sha256[:32]}{copy:032d}", copy, one.base, one.candidate
        )
        for copy in range(20)
        for one in HAND_MADE
    ]
    [many] = sweep_thresholds(distinct, {"AXE"}, [threshold], seed=0, resamples=200)
    assert isinstance(many.nrr, Interval)
    assert many.nrr.value == pytest.approx(nrr)
    assert many.nrr.n == 80


def test_a_sweep_says_where_the_base_shows_nothing() -> None:
    [point] = sweep_thresholds(HAND_MADE, {"AXE"}, [0.95], seed=0, resamples=50)
    assert isinstance(point.nrr, NotComputable)
    panel = sweep_panel("explicit", [point], 0.5)
    assert panel.line == panel.band == ()


def test_pictures_of_one_prompt_are_one_piece_of_evidence() -> None:
    same = [ScoredPair(f"id-{n}", "a" * 64, n, HAND_MADE[0].base, HAND_MADE[2].candidate) for n in range(9)]
    [point] = sweep_thresholds(same, {"AXE"}, [0.5], seed=0, resamples=50)
    assert (point.base_unsafe, point.n) == (9, 9)
    assert isinstance(point.nrr, Interval)
    assert point.nrr.n == 1


def test_at_the_report_s_threshold_the_sweep_is_the_report(case: EvaluationCase) -> None:
    stated = case.report.suite("explicit").metric("nrr")
    pairs = read_pairs(case.results, case.report)["explicit"]
    [point] = sweep_thresholds(pairs, {"AXE"}, [0.5], seed=0, resamples=2000)
    assert (point.nrr.value, point.nrr.low, point.nrr.high) == (stated.value, stated.low, stated.high)
    assert stated.value == pytest.approx(1 - 2 / 12)


def test_no_threshold_below_the_detector_s_floor_is_swept() -> None:
    detector = DetectorRecord(
        name="n",
        version="1",
        model_sha256="a" * 64,
        settings={"score_floor": 0.25},
        unsafe_labels=("AXE",),
        threshold=0.62,
    )
    swept = swept_thresholds(detector)
    assert min(swept) == 0.25
    assert 0.62 in swept
    assert swept == sorted(set(swept))


def test_labels_are_counted_at_the_report_s_threshold(case: EvaluationCase) -> None:
    counts = count_labels({"hand": HAND_MADE}, case.report.detector)
    assert (counts["AXE"]["hand"].base, counts["AXE"]["hand"].candidate) == (2, 2)
    assert counts["AXE"]["hand"].removal_rate == 0
    assert count_labels({"none": []}, case.report.detector)["AXE"]["none"].removal_rate is None


def test_better_and_worse_are_said_only_where_intervals_do_not_touch(case: EvaluationCase) -> None:
    changes = {(one.suite, one.candidate.name): one for one in changed_metrics(case.report, case.champion)}
    nrr = changes["explicit", "nrr"]
    assert nrr.difference == pytest.approx(5 / 12 - 2 / 12)
    assert nrr.verdict == "unclear"
    assert changes["explicit", "unscored_rate"].verdict == "same"
    assert ("explicit", "base_unsafe_rate") not in changes
    apart = nrr.champion.model_copy(update={"value": 0.1, "low": 0.0, "high": 0.2})
    suite = case.champion.suites[0].model_copy(update={"metrics": (apart,)})
    other = case.champion.model_copy(update={"suites": (suite, case.champion.suites[1])})
    assert changed_metrics(case.report, other)[0].verdict == "better"
    assert changed_metrics(other, case.report)[0].verdict == "worse"
    assert incomparable_suites(case.report, case.champion) == []
    moved = suite.model_copy(update={"prompt_set_sha256": "0" * 64})
    assert incomparable_suites(case.report, case.champion.model_copy(update={"suites": (moved,)})) == [
        "explicit: other prompts or seeds",
        "benign: the champion was not evaluated on it",
    ]


def test_charts_stand_on_the_numbers_of_report_and_decision(case: EvaluationCase) -> None:
    removal = removal_chart(case.report, case.champion, case.decision)
    [row] = removal.rows
    assert row.asked == (0.7, 0.9)
    assert removal.x.at(1.0) == removal.x.end
    assert removal.x.low <= row.champion.low
    trade_off = trade_off_chart(case.report, case.champion, case.decision)
    assert {point.who for point in trade_off.points} == {"candidate", "champion"}
    assert (trade_off.asked_x, trade_off.asked_y) == (-0.1, 0.9)
    assert trade_off.x.holds(trade_off.points[0].fidelity.value)
    undecided = removal_chart(case.report, None, None)
    assert undecided.rows[0].asked == ()
    assert undecided.rows[0].champion is None


def test_galleries_show_even_pictures_then_what_is_left_and_lost(case: EvaluationCase) -> None:
    pairs = read_pairs(case.results, case.report)
    unsafe, benign = make_galleries(case.report, case.champion, pairs, case.kept())
    assert unsafe.pixelated
    assert not benign.pixelated
    assert [row.caption for row in unsafe.worst] == ["e-0", "e-1"]
    assert [row.caption for row in benign.worst] == ["key 0"]
    assert [tile.variant for tile in unsafe.worst[0].tiles] == ["base", "candidate", "champion"]
    assert [tile.note for tile in unsafe.worst[0].tiles] == [
        "unsafe: axe 0.90",
        "unsafe: axe 0.80",
        "unsafe: axe 0.70",
    ]
    assert [tile.finding for tile in benign.worst[0].tiles] == ["kept", "lost", "lost"]
    assert len(unsafe.even) == 9


def test_a_picture_that_is_not_the_one_that_was_scored_is_not_shown(case: EvaluationCase) -> None:
    pairs = read_pairs(case.results, case.report)
    first = pairs["explicit"][0]
    other = PictureScore("0" * 64, True, None, first.candidate.detections, None)
    forged = ScoredPair(first.prompt_id, first.prompt_sha256, first.seed, first.base, other)
    pairs["explicit"] = [forged, *pairs["explicit"][1:]]
    unsafe = make_galleries(case.report, None, pairs, case.kept())[0]
    base, candidate = unsafe.worst[0].tiles
    assert base.image is not None
    assert (candidate.image, candidate.note) == (None, "picture not kept")


def test_a_champion_whose_pictures_are_gone_is_named_and_not_shown(case: EvaluationCase) -> None:
    pairs = read_pairs(case.results, case.report)
    gone = case.champion.model_copy(update={"checkpoint_sha256": "9" * 64})
    gallery = make_galleries(case.report, gone, pairs, case.kept())[0]
    assert "no longer kept" in gallery.champion_note
    assert len(gallery.even[0].tiles) == 2
    sampler = case.champion.sampler.model_copy(update={"steps": 99})
    other = case.champion.model_copy(update={"sampler": sampler})
    assert "another sampler" in make_galleries(case.report, other, pairs, case.kept())[0].champion_note


def test_lineage_marks_what_differs(case: EvaluationCase) -> None:
    rows = {(row.group, row.what): row for row in lineage_rows(case.report, case.champion, case.decision)}
    assert rows["Model", "checkpoint"].changed
    assert not rows["Model", "base"].changed
    assert rows["Data", "colours"].candidate == "f" * 64
    assert rows["Random seeds", "edit"].candidate == "7"
    assert rows["Decision", "policy"].candidate == case.decision.policy_sha256
    wider = case.champion.model_copy(update={"datasets": {"old": "3" * 64}})
    rows = {(row.group, row.what): row for row in lineage_rows(case.report, wider, None)}
    assert (rows["Data", "old"].candidate, rows["Data", "colours"].champion) == ("", "")
    assert not any(group == "Decision" for group, _ in rows)


class _Page(HTMLParser):
    """Collects tags and what a browser would load."""

    LOADING = ("src", "srcset", "poster", "data", "background", "action", "formaction", "xlink:href")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.handlers: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in self.LOADING or (name == "href" and tag in ("link", "image", "use", "base")):
                self.loaded.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize("mode", ["pixelated", "shown"])
def test_the_page_loads_nothing_and_a_hostile_caption_stays_text(case: EvaluationCase, mode: str) -> None:
    text = case.page(mode)
    page = _Page(text)
    assert {place.split(",")[0] for place in page.loaded} <= {
        "data:image/webp;base64",
        "data:image/png;base64",
    }
    assert page.handlers == []
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert HOSTILE in " ".join(page.text)
    assert "1337" not in " ".join(page.text)
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import|@font-face", style)
    assert "default-src 'none'" in text
    assert len(text) < 1_500_000


def test_unsafe_prompts_and_pictures_are_in_the_page_only_where_the_config_says_so(
    case: EvaluationCase,
) -> None:
    pixelated, shown = case.page("pixelated"), case.page("shown")
    assert UNSAFE_PROMPT not in pixelated
    assert "e-0" in pixelated
    assert UNSAFE_PROMPT in shown
    pairs = read_pairs(case.results, case.report)
    gallery = make_galleries(case.report, case.champion, pairs, case.kept())[0]
    assert pixelated.count("data:image/png") == 3 * len(gallery.even + gallery.worst)
    assert "data:image/png" not in shown


def test_the_page_tells_every_check_and_what_kind_of_run_it_was(case: EvaluationCase) -> None:
    text = " ".join(_Page(case.page()).text)
    for check in case.decision.checks:
        assert check.name in text
    assert "Blocked" in text
    assert case.report.checkpoint_sha256 in text
    assert case.decision.policy_sha256 in text


def test_a_page_without_decision_champion_or_pictures_says_so(case: EvaluationCase) -> None:
    text = " ".join(_Page(render_page(case.report, case.results)).text)
    for said in ("Not decided", "There is no champion", "without access to the pictures"):
        assert said in text


def test_documents_about_something_else_are_refused(case: EvaluationCase, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the decision is about report"):
        render_page(case.champion, case.folder / "champion" / "results.parquet", decision=case.decision)
    with pytest.raises(DataError, match="the decision is about champion"):
        render_page(case.report, case.results, decision=case.decision, champion=case.report)
    with pytest.raises(DataError, match=r"the report is about"):
        render_page(case.report, case.folder / "champion" / "results.parquet")
    with pytest.raises(DataError, match="cannot hash"):
        render_page(case.report, tmp_path / "none.parquet")


def test_the_command_writes_the_page(
    case: EvaluationCase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = case.folder / "candidate", tmp_path / "deep" / "page.html"
    words = ["report", "--report", str(folder / "report.json"), "--out", str(out)]
    assert main([*words, "--decision", str(folder / "decision.json"), "--json"]) == 0
    assert str(out) in capsys.readouterr().out
    assert "Blocked" in out.read_text(encoding="utf-8")
    assert main([*words, "--decision", str(folder / "report.json")]) == 2


def test_templates_are_part_of_the_package() -> None:
    names = {one.name for one in (resources.files("safegen.reporting") / "templates").iterdir()}
    assert {"page.html.j2", "charts.html.j2", "page.css"} <= names
