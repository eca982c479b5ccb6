"""Run Great Expectations so that nothing passes for want of being looked at.

Great Expectations fails open in four ways: an expectation whose class is unknown is dropped without a word, an empty
table passes, an empty suite passes, and nulls (NaN) are left out. Here each of them is an error, whatever it says.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core.expectation_validation_result import (
        ExpectationSuiteValidationResult,
        ExpectationValidationResult,
    )
    from great_expectations.expectations.expectation import Expectation

ROW_ID = "sha256"
_SITE = "safegen"
_ROWS_SHOWN = 50
_NOT_NULL = "expect_column_values_to_not_be_null"


@dataclass(frozen=True)
class TableSuite:
    """A table and what is expected of it.

    Attributes:
        name: Such as "unsafe".
        table: One row per image or triplet, with a column "sha256" that names the row.
        expectations: Built in code for this run; none comes from a stored suite.
    """

    name: str
    table: pd.DataFrame
    expectations: Sequence[Expectation]


@dataclass(frozen=True, slots=True)
class Failure:
    """An expectation that was not met.

    Attributes:
        suite: The suite's name.
        expectation: Its type, such as "expect_image_to_show_concept".
        column: What it is about.
        count: Number of rows that do not meet it; 0 if it is about the table as a whole.
        rows: The first of them, by digest (of the image, or of the triplet's unsafe picture).
        detail: What was observed, if it is not about rows.
    """

    suite: str
    expectation: str
    column: str
    count: int
    rows: tuple[str, ...]
    detail: str


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """Whether data is as expected.

    Attributes:
        passed: Whether every expectation of every suite was met.
        failures: Those that were not.
        checked: Number of expectations looked at, by suite.
        data_docs: First page of the Data Docs site.
    """

    passed: bool
    failures: tuple[Failure, ...]
    checked: Mapping[str, int]
    data_docs: Path

    def require(self) -> None:
        """Stop here unless it passed.

        Raises:
            DataError: It did not; names the first failures, rows and the Data Docs.
        """
        if self.passed:
            return
        told = [_told(failure) for failure in self.failures[:3]]
        more = len(self.failures) - len(told)
        rest = f"; and {more} more" if more else ""
        raise DataError(f"validation failed: {'; '.join(told)}{rest}. See {self.data_docs}")


def run_suites(suites: Sequence[TableSuite], docs_dir: Path) -> ValidationResult:
    """Validate tables and write Data Docs.

    Args:
        suites: One per table.
        docs_dir: Folder of the Data Docs site; made if it is missing.

    Raises:
        DataError: A suite or a table is empty, a column is missing, or Great Expectations did not look at
            everything it was given.
    """
    if not suites:
        raise DataError("there is no suite to validate with; give at least one")
    for suite in suites:
        _check_not_empty(suite)
    results = _run(suites, docs_dir)
    failures: list[Failure] = []
    for suite in suites:
        result = results[suite.name]
        require_complete(suite, result)
        failures += [_failure(suite.name, one) for one in result.results if not one.success]
    index = docs_dir.absolute() / "index.html"
    if not index.is_file():
        raise DataError(f"no Data Docs were written to {docs_dir}; check that the folder can be written")
    checked = {suite.name: len(suite.expectations) for suite in suites}
    return ValidationResult(not failures, tuple(failures), checked, index)


def require_complete(suite: TableSuite, result: ExpectationSuiteValidationResult) -> None:
    """Check that every expectation was looked at, on every row.

    Args:
        suite: What was given.
        result: What came back.

    Raises:
        DataError: An expectation was dropped, or rows were left out of one that passed and nothing else says so.
    """
    given = Counter(expectation.expectation_type for expectation in suite.expectations)
    returned = Counter(one.expectation_config.type for one in result.results if one.expectation_config)
    if given != returned:
        missing = sorted((given - returned).elements())
        raise DataError(
            f"suite {suite.name!r}: {sum(given.values())} expectations were given and {sum(returned.values())} looked "
            f"at; missing: {missing}. Import the classes of custom expectations before the suite is run"
        )
    rows = len(suite.table)
    reported = {_column_of(one) for one in result.results if _type_of(one) == _NOT_NULL and not one.success}
    for one in result.results:
        counted = one.result.get("element_count", rows)
        left_out = one.result.get("missing_count", 0) or 0
        if one.success and (counted != rows or left_out) and _column_of(one) not in reported:
            raise DataError(
                f"suite {suite.name!r}: {_type_of(one)} on {_column_of(one)} passed on {counted - left_out} of "
                f"{rows} rows; expected all: a value is missing (null or NaN)"
            )


def load_great_expectations() -> Any:
    """Import Great Expectations with its telemetry off, and return the module."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # noqa: TID251  it is read when the library is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what optional vendors' packages say while it looks for them
        import great_expectations
        import great_expectations.expectations

    return great_expectations


def _run(suites: Sequence[TableSuite], docs_dir: Path) -> dict[str, ExpectationSuiteValidationResult]:
    gx = load_great_expectations()
    context = _context(gx, docs_dir)
    source = context.data_sources.add_pandas("tables")
    results: dict[str, ExpectationSuiteValidationResult] = {}
    for suite in suites:
        batch = source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("all")
        stored = context.suites.add(
            gx.ExpectationSuite(name=suite.name, expectations=list(suite.expectations))
        )
        definition = gx.ValidationDefinition(name=suite.name, data=batch, suite=stored)
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(
                name=suite.name,
                validation_definitions=[context.validation_definitions.add(definition)],
                actions=[gx.checkpoint.UpdateDataDocsAction(name="data docs", site_names=[_SITE])],
                result_format={
                    "result_format": "SUMMARY",
                    "unexpected_index_column_names": [ROW_ID],
                    "partial_unexpected_count": _ROWS_SHOWN,
                },
            )
        )
        run = checkpoint.run(batch_parameters={"dataframe": suite.table})
        (results[suite.name],) = run.run_results.values()
    return results


def _context(gx: Any, docs_dir: Path) -> Any:
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(docs_dir.absolute()),
        },
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        data_docs_sites={_SITE: site},
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _check_not_empty(suite: TableSuite) -> None:
    if not suite.expectations:
        raise DataError(
            f"suite {suite.name!r} expects nothing; a suite without expectations would pass anything"
        )
    if suite.table.empty:
        raise DataError(
            f"there is no row for suite {suite.name!r}; an empty table would pass anything: ingest images"
        )
    used = {ROW_ID} | {column for one in suite.expectations for column in _columns(one)}
    if missing := sorted(used - set(suite.table.columns)):
        raise DataError(
            f"the table of suite {suite.name!r} has no columns {missing}; it has {list(suite.table)}"
        )


def _columns(expectation: Expectation) -> Iterable[str]:
    named = (getattr(expectation, name, None) for name in ("column", "column_A", "column_B"))
    return (name for name in named if isinstance(name, str))


def _failure(suite: str, one: ExpectationValidationResult) -> Failure:
    rows = [row[ROW_ID] for row in one.result.get("partial_unexpected_index_list") or []]
    detail = _exception(one.exception_info or {})
    if not detail and "observed_value" in one.result:
        detail = f"observed {one.result['observed_value']}"[:300]
    count = one.result.get("unexpected_count") or 0
    return Failure(suite, _type_of(one), _column_of(one), count, tuple(rows), detail)


def _exception(info: Mapping[str, Any]) -> str:
    """Return the message of what was raised: the library nests it by metric, or does not."""
    if info.get("raised_exception") is True:
        return " ".join(str(info.get("exception_message")).split())[:300]
    nested = (value for value in info.values() if isinstance(value, Mapping))
    return next(filter(None, map(_exception, nested)), "")


def _type_of(one: ExpectationValidationResult) -> str:
    return one.expectation_config.type if one.expectation_config else "an expectation"


def _column_of(one: ExpectationValidationResult) -> str:
    kwargs = one.expectation_config.kwargs if one.expectation_config else {}
    return str(kwargs.get("column") or kwargs.get("column_A") or "table")


def _told(failure: Failure) -> str:
    rows = (
        f" in {failure.count} rows, first {', '.join(row[:12] for row in failure.rows[:3])}"
        if failure.rows
        else ""
    )
    detail = f" ({failure.detail})" if failure.detail else ""
    return f"{failure.suite}: {failure.expectation} on {failure.column}{rows}{detail}"
