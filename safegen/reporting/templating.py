"""The templates' environment: escaping, and the filters by which numbers are worded."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from safegen.domain.report import SuiteReport
from safegen.reporting.wording import (
    WORDINGS,
    interval_text,
    number_text,
    plain_number,
    short_numbers,
    title_of,
)


@cache
def environment() -> Environment:
    """Return the environment of `safegen/reporting/templates`; what is put into a template is escaped."""
    made = Environment(
        loader=PackageLoader("safegen.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "metric_title": title_of,
        "interval": interval_text,
        "short_numbers": short_numbers,
        "plain_number": plain_number,
    }
    made.globals |= {"number": number_text, "wordings": WORDINGS, "measured": _measured}
    return made


def _measured(suites: list[SuiteReport], metric: str) -> bool:
    return any(suite.metric(metric) is not None for suite in suites)
