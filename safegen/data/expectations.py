"""Image expectations for Great Expectations: each a metric on a column and an expectation over it.

Importing this module imports Great Expectations (seconds). The pictures are decoded and scored before; the
expectations judge the columns that this gave. Great Expectations leaves rows with nulls out of column maps, so every
suite expects its columns not to be null as well (`safegen.data.suites`).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import ColumnMapExpectation, ColumnPairMapExpectation
from great_expectations.expectations.metrics.map_metric_provider import (
    ColumnMapMetricProvider,
    ColumnPairMapMetricProvider,
    column_condition_partial,
    column_pair_condition_partial,
)


class ConceptScoreAtLeast(ColumnMapMetricProvider):
    """Whether a detector's concept score reaches the threshold."""

    condition_metric_name = "column_values.concept_score_at_least"
    condition_value_keys = ("threshold",)

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, threshold: float, **_: Any) -> pd.Series:  # noqa: N805
        return column >= threshold


class ExpectImageToShowConcept(ColumnMapExpectation):
    """Expect the detector to find the concept: a score of `threshold` or more in every row."""

    threshold: float
    map_metric: ClassVar[str | None] = "column_values.concept_score_at_least"
    success_keys: ClassVar[tuple[str, ...]] = ("threshold", "mostly")


class ConceptScoreBelow(ColumnMapMetricProvider):
    """Whether a detector's concept score stays below the threshold."""

    condition_metric_name = "column_values.concept_score_below"
    condition_value_keys = ("threshold",)

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, threshold: float, **_: Any) -> pd.Series:  # noqa: N805
        return column < threshold


class ExpectImageNotToShowConcept(ColumnMapExpectation):
    """Expect the detector not to find the concept: a score below `threshold` in every row."""

    threshold: float
    map_metric: ClassVar[str | None] = "column_values.concept_score_below"
    success_keys: ClassVar[tuple[str, ...]] = ("threshold", "mostly")


class StoredImageAsDeclared(ColumnPairMapMetricProvider):
    """Whether what was found in the store is what the manifest says: the same digest and size."""

    condition_metric_name = "column_pair_values.stored_image_as_declared"
    condition_domain_keys = (
        "batch_id",
        "table",
        "column_A",
        "column_B",
        "row_condition",
        "condition_parser",
        "ignore_row_if",
    )
    condition_value_keys = ()

    @column_pair_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_A: pd.Series, column_B: pd.Series, **_: Any) -> pd.Series:  # noqa: N803, N805
        return (column_A == column_B).fillna(value=False)


class ExpectImageBlobToDecodeToSize(ColumnPairMapExpectation):
    """Expect every stored picture to have its digest and to decode to the size that the manifest declares."""

    ignore_row_if: Literal["neither"] = "neither"
    map_metric: ClassVar[str | None] = "column_pair_values.stored_image_as_declared"
    success_keys: ClassVar[tuple[str, ...]] = ("ignore_row_if", "mostly")


class ColumnPairDiffers(ColumnPairMapMetricProvider):
    """Whether two columns hold different values."""

    condition_metric_name = "column_pair_values.differ"
    condition_domain_keys = StoredImageAsDeclared.condition_domain_keys
    condition_value_keys = ()

    @column_pair_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_A: pd.Series, column_B: pd.Series, **_: Any) -> pd.Series:  # noqa: N803, N805
        return column_A != column_B


class ExpectImagesToDiffer(ColumnPairMapExpectation):
    """Expect two pictures of a row to be different pictures."""

    ignore_row_if: Literal["neither"] = "neither"
    map_metric: ClassVar[str | None] = "column_pair_values.differ"
    success_keys: ClassVar[tuple[str, ...]] = ("ignore_row_if", "mostly")
