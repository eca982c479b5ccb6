"""Validation with the real Great Expectations: it fails what is wrong, and never passes for want of looking."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from safegen.adapters.folder_store import FolderStore
from safegen.data.checked_suite import TableSuite, load_great_expectations, require_complete, run_suites
from safegen.data.detections import ScoredImages, read_detections, score_images, screen_images
from safegen.data.picture import blob_key, put_picture
from safegen.data.suites import SuiteRules, not_null
from safegen.data.validate import ConceptCheck, validate_images, validate_triplets
from safegen.domain.dataset import ImageRecord, Reason, Role, Split, TripletRecord
from safegen.domain.detection import Detection, DetectorIdentity
from safegen.errors import DataError, EvaluationError

RULES = SuiteRules(min_rows=3, min_side_px=8, min_held_out=1)
IDENTITY = DetectorIdentity("brightness", "1", "0" * 64)


class Brightness:
    """Finds a bright picture; counts how many it was shown."""

    identity = IDENTITY
    labels = ("bright",)

    def __init__(self) -> None:
        self.seen = 0

    def detect(self, images: list[np.ndarray]) -> list[tuple[Detection, ...]]:
        self.seen += len(images)
        scores = [float(image.mean() / 255) for image in images]
        return [(Detection("bright", score, (0, 0, 16, 16)),) if score > 0.05 else () for score in scores]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def add(store: FolderStore, role: Role, number: int, split: Split) -> ImageRecord:
    level = 220 if role == "unsafe" else 20
    pixels = np.random.default_rng([number, level]).integers(
        level - 10, level + 10, (16, 16, 3), dtype=np.uint8
    )
    sha256 = put_picture(store, pixels)
    phash = f"{int(sha256[:16], 16):016x}"
    return ImageRecord(sha256, sha256[::-1], role, f"{role}/{number}", "", 16, 16, "PNG", phash, split, 1)


@pytest.fixture
def records(store: FolderStore) -> list[ImageRecord]:
    roles: tuple[Role, ...] = ("unsafe", "benign")
    return [add(store, role, n, "held_out" if n == 3 else "train") for role in roles for n in range(4)]


def check_of(store: FolderStore, records: list[ImageRecord]) -> ConceptCheck:
    scored = score_images([record.sha256 for record in records], store, Brightness())
    return ConceptCheck("miniature", scored, frozenset({"bright"}), 0.5)


def told(
    store: FolderStore, records: list[ImageRecord], check: ConceptCheck, docs: Path
) -> dict[str, tuple[str, ...]]:
    """Validate, and return the rows that failed by "suite expectation column"."""
    result = validate_images(records, store, [check], rules=RULES, max_near_bits=2, docs_dir=docs)
    assert result.passed == (not result.failures)
    return {f"{one.suite} {one.expectation} {one.column}": one.rows for one in result.failures}


def test_good_data_pass_and_are_documented(
    store: FolderStore, records: list[ImageRecord], tmp_path: Path
) -> None:
    check = check_of(store, records)
    result = validate_images(
        records, store, [check], rules=RULES, max_near_bits=2, docs_dir=tmp_path / "docs"
    )
    assert result.failures == ()
    assert result.passed
    assert set(result.checked) == {"unsafe", "benign", "dataset"}
    result.require()
    assert "unsafe" in result.data_docs.read_text()
    pages = [page.read_text() for page in (tmp_path / "docs").rglob("*.html")]
    assert any("expect_image_to_show_concept" in page or "show_concept" in page for page in pages)


def test_wrong_images_stop_the_flow_by_name(
    store: FolderStore, records: list[ImageRecord], tmp_path: Path
) -> None:
    swapped = [
        replace(records[0], role="benign"),
        replace(records[4], role="unsafe"),
        *records[1:4],
        *records[5:],
    ]
    check = check_of(store, records)
    failures = told(store, swapped, check, tmp_path / "docs")
    assert failures == {
        "unsafe expect_image_to_show_concept score_miniature": (records[4].sha256,),
        "benign expect_image_not_to_show_concept score_miniature": (records[0].sha256,),
    }
    result = validate_images(
        swapped, store, [check], rules=RULES, max_near_bits=2, docs_dir=tmp_path / "docs"
    )
    with pytest.raises(DataError) as stop:
        result.require()
    assert records[0].sha256[:12] in str(stop.value)
    assert str(result.data_docs) in str(stop.value)


def test_pictures_that_are_not_what_the_manifest_says(
    store: FolderStore, records: list[ImageRecord], tmp_path: Path
) -> None:
    check = check_of(store, records)
    store.delete(blob_key(records[0].sha256))
    store.put(blob_key(records[1].sha256), store.get(blob_key(records[2].sha256)))
    changed = [*records[:4], replace(records[4], width_px=17), *records[5:]]
    failures = told(store, changed, check, tmp_path / "docs")
    assert set(failures["unsafe expect_image_blob_to_decode_to_size declared"]) == {
        r.sha256 for r in records[:2]
    }
    assert failures["benign expect_image_blob_to_decode_to_size declared"] == (records[4].sha256,)
    assert len(failures) == 2


def test_duplicates_overlap_balance_and_sizes(
    store: FolderStore, records: list[ImageRecord], tmp_path: Path
) -> None:
    check = check_of(store, records)
    near = replace(
        records[3], phash=f"{int(records[0].phash, 16) ^ 0b101:016x}"
    )  # held out, two bits from train
    failures = told(store, [*records[:3], near, records[4], *records[4:]], check, tmp_path / "docs")
    assert failures["dataset expect_column_values_to_be_in_set twin_in_other_split"] == (near.sha256,)
    assert set(failures["benign expect_column_values_to_be_unique sha256"]) == {records[4].sha256}
    lopsided = SuiteRules(min_rows=4, min_side_px=17, min_role_rate=0.5, min_held_out=1)
    result = validate_images(
        [*records[:4], *records[5:8]],
        store,
        [check],
        rules=lopsided,
        max_near_bits=2,
        docs_dir=tmp_path / "docs",
    )
    kinds = {f"{one.suite} {one.expectation} {one.column}" for one in result.failures}
    assert {
        "benign expect_table_row_count_to_be_between table",
        "dataset expect_column_min_to_be_between benign_images",
        "unsafe expect_column_values_to_be_between width_px",
    } <= kinds


# ------------------------------------------------------------------------------- four ways of failing open


def suite_of(table: pd.DataFrame) -> TableSuite:
    load_great_expectations()
    import great_expectations.expectations as gxe

    return TableSuite(
        "scores", table, [gxe.ExpectColumnValuesToBeBetween(column="score", min_value=0, max_value=1)]
    )


TABLE = pd.DataFrame({"sha256": ["a", "b", "c"], "score": [0.1, 0.2, 0.3]})


def test_dropped_custom_class_is_noticed() -> None:
    gx = load_great_expectations()
    from great_expectations.core import ExpectationSuite

    known = {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "sha256"}}
    unknown = {"type": "expect_something_nobody_imported", "kwargs": {"column": "score"}}
    suite = ExpectationSuite(name="stored", expectations=[known, unknown])
    assert len(suite.expectations) == 1  # dropped without a word: what we guard against
    context = gx.get_context(mode="ephemeral")
    batch = (
        context.data_sources.add_pandas("t")
        .add_dataframe_asset("t")
        .add_batch_definition_whole_dataframe("t")
    )
    result = batch.get_batch(batch_parameters={"dataframe": TABLE}).validate(suite)
    assert result.success
    given = TableSuite("stored", TABLE, [*suite.expectations, *suite_of(TABLE).expectations])
    with pytest.raises(DataError, match="expect_column_values_to_be_between"):
        require_complete(given, result)


def test_empty_table_fails(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row"):
        run_suites([suite_of(TABLE.head(0))], tmp_path)


def test_a_role_without_images_fails(store: FolderStore, records: list[ImageRecord], tmp_path: Path) -> None:
    check = check_of(store, records)
    with pytest.raises(DataError, match="no row for suite 'benign'"):
        validate_images(records[:4], store, [check], rules=RULES, max_near_bits=2, docs_dir=tmp_path)
    with pytest.raises(DataError, match="no row"):
        validate_images([], store, [check], rules=RULES, max_near_bits=2, docs_dir=tmp_path)


def test_empty_suite_fails(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expects nothing"):
        run_suites([TableSuite("scores", TABLE, [])], tmp_path)
    with pytest.raises(DataError, match="no suite"):
        run_suites([], tmp_path)


def test_nan_fails_with_and_without_a_null_check(tmp_path: Path) -> None:
    table = TABLE.assign(score=[0.1, float("nan"), 0.3])
    with pytest.raises(DataError, match="passed on 2 of 3 rows"):
        run_suites([suite_of(table)], tmp_path)
    suite = suite_of(table)
    checked = TableSuite("scores", table, [*not_null(["score"]), *suite.expectations])
    result = run_suites([checked], tmp_path)
    assert not result.passed
    assert [(one.expectation, one.rows) for one in result.failures] == [
        ("expect_column_values_to_not_be_null", ("b",))
    ]


def test_images_without_a_score_fail(store: FolderStore, records: list[ImageRecord], tmp_path: Path) -> None:
    check = check_of(store, records)
    some = ScoredImages(IDENTITY, {r.sha256: check.scored.by_sha256[r.sha256] for r in records[1:]}, "x")
    with pytest.raises(DataError, match=f"score_miniature in 1 rows, first {records[0].sha256[:12]}"):
        validate_images(
            records, store, [replace(check, scored=some)], rules=RULES, max_near_bits=2, docs_dir=tmp_path
        ).require()
    bad = dict(check.scored.by_sha256)
    nan = Detection("bright", float("nan"), (0, 0, 1, 1))
    bad[records[5].sha256] = (Detection("bright", 0.1, (0, 0, 1, 1)), nan)  # max() would return 0.1
    with pytest.raises(DataError, match=f"score_miniature in 1 rows, first {records[5].sha256[:12]}"):
        validate_images(
            records,
            store,
            [replace(check, scored=ScoredImages(IDENTITY, bad, "x"))],
            rules=RULES,
            max_near_bits=2,
            docs_dir=tmp_path,
        ).require()


def test_missing_columns_fail(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no columns \\['score'\\]"):
        run_suites([suite_of(TABLE.drop(columns="score"))], tmp_path)


# ----------------------------------------------------------------------------------------------- triplets


def triplet(store: FolderStore, unsafe: ImageRecord, benign: ImageRecord) -> TripletRecord:
    pixels = np.full((16, 16, 3), 60 + int(unsafe.sha256[:2], 16) // 8, np.uint8)
    censored = put_picture(store, pixels)
    return TripletRecord(
        unsafe.sha256,
        censored,
        benign.sha256,
        unsafe.sha256,
        benign.sha256,
        "",
        "",
        "[[0, 0, 16, 16]]",
        1,
        16,
        False,
    )


def test_triplets(store: FolderStore, records: list[ImageRecord], tmp_path: Path) -> None:
    triplets = [
        triplet(store, unsafe, benign) for unsafe, benign in zip(records[:3], records[4:7], strict=True)
    ]

    def failures(changed: list[TripletRecord]) -> set[str]:
        scored = score_images([one.censored_sha for one in changed], store, Brightness())
        check = ConceptCheck("miniature", scored, frozenset({"bright"}), 0.5)
        result = validate_triplets(changed, records, store, check, rules=RULES, size_px=16, docs_dir=tmp_path)
        return {f"{one.expectation} {one.column}" for one in result.failures}

    assert failures(triplets) == set()
    assert failures([replace(triplets[0], censored_sha=triplets[0].unsafe_sha), *triplets[1:]]) == {
        "expect_images_to_differ unsafe_sha",
        "expect_image_not_to_show_concept censored_score",
    }
    held_out = replace(triplets[0], benign_origin_sha=records[7].sha256)
    assert failures([held_out, *triplets[1:]]) == {"expect_column_values_to_be_in_set benign_split"}
    assert failures([*triplets, triplets[0]]) == {"expect_column_values_to_be_unique sha256"}


# --------------------------------------------------------------------------------------------- detections


def test_pictures_are_scored_once(store: FolderStore, records: list[ImageRecord]) -> None:
    detector = Brightness()
    digests = [record.sha256 for record in records]
    first = score_images(digests[:5], store, detector, batch_size=2)
    again = score_images(digests, store, detector)
    assert detector.seen == len(records)
    assert {key: again.by_sha256[key] for key in digests[:5]} == first.by_sha256
    assert read_detections(store.get(again.uri.removeprefix(f"{store.uri}/"))) == again.by_sha256
    assert again.concept_score(digests[0], {"bright"}) == pytest.approx(0.86, abs=0.03)
    assert again.concept_score(digests[0], {"other"}) == 0
    with pytest.raises(DataError, match="not scored"):
        first.concept_score(digests[7], {"bright"})


def test_detectors_that_answer_badly_are_refused(store: FolderStore, records: list[ImageRecord]) -> None:
    class Silent(Brightness):
        def detect(self, images: list[np.ndarray]) -> list[tuple[Detection, ...]]:
            return super().detect(images)[1:]

    class Broken(Brightness):
        def detect(self, images: list[np.ndarray]) -> list[tuple[Detection, ...]]:
            return [(Detection("bright", float("nan"), (0, 0, 1, 1)),) for _ in images]

    for detector in (Silent(), Broken()):
        with pytest.raises(EvaluationError):
            score_images([records[0].sha256], store, detector)


def test_screening_puts_contradictions_aside_unless_there_are_many(
    store: FolderStore, records: list[ImageRecord]
) -> None:
    check = check_of(store, records)
    swapped = [*records, replace(records[0], role="benign", source="benign/bright")]
    kept, refused = screen_images(
        swapped, check.scored, labels=check.labels, threshold=0.5, max_screened_rate=0.25
    )
    assert kept == records
    assert [(one.source, one.reason) for one in refused] == [("benign/bright", Reason.CONCEPT_SHOWN)]
    with pytest.raises(DataError, match="1 of 5 benign images contradict"):
        screen_images(swapped, check.scored, labels=check.labels, threshold=0.5, max_screened_rate=0.1)
