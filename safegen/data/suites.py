"""What is expected of unsafe images, benign images, both together, and triplets; built in code for every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safegen.data.checked_suite import ROW_ID, TableSuite, load_great_expectations
from safegen.domain.dataset import ROLES, SPLITS, Role
from safegen.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

DIGEST = r"^[0-9a-f]{64}$"


@dataclass(frozen=True, slots=True)
class SuiteRules:
    """The numbers in the suites.

    Attributes:
        min_rows: Least number of images of each role, and of triplets.
        min_side_px: Least width and height.
        max_side_px: Largest width and height.
        min_role_rate: Least share of the rarer role among all images, 0..0.5.
        min_held_out: Least number of held-out images of each role.
    """

    min_rows: int = 10
    min_side_px: int = 32
    max_side_px: int = 16_384
    min_role_rate: float = 0.05
    min_held_out: int = 0

    def __post_init__(self) -> None:
        if self.min_rows < 1 or not 0 <= self.min_role_rate <= 0.5 or self.min_side_px > self.max_side_px:
            raise ConfigError(
                f"suite rules {self} make no sense: expected min_rows >= 1 and min_role_rate 0..0.5"
            )


def image_suite(
    role: Role, table: pd.DataFrame, rules: SuiteRules, *, shown: dict[str, float], absent: dict[str, float]
) -> TableSuite:
    """Return what is expected of the images of one role.

    Args:
        role: Also the suite's name.
        table: As `image_table` makes it, the rows of this role.
        rules: The numbers.
        shown: Score columns that must reach a threshold.
        absent: Score columns that must stay below a threshold.
    """
    load_great_expectations()
    import great_expectations.expectations as gxe

    from safegen.data import expectations as ours

    def side(column: str) -> Expectation:
        return gxe.ExpectColumnValuesToBeBetween(
            column=column, min_value=rules.min_side_px, max_value=rules.max_side_px
        )

    expected: list[Expectation] = [
        gxe.ExpectTableRowCountToBeBetween(min_value=rules.min_rows),
        gxe.ExpectColumnValuesToBeUnique(column=ROW_ID),
        gxe.ExpectColumnValuesToMatchRegex(column=ROW_ID, regex=DIGEST),
        gxe.ExpectColumnValuesToMatchRegex(column="source_sha256", regex=DIGEST),
        gxe.ExpectColumnValuesToBeInSet(column="role", value_set=[role]),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS)),
        gxe.ExpectColumnValuesToBeInSet(column="format", value_set=["PNG", "JPEG", "WEBP"]),
        side("width_px"),
        side("height_px"),
        ours.ExpectImageBlobToDecodeToSize(column_A="declared", column_B="stored"),
    ]
    expected += [ours.ExpectImageToShowConcept(column=name, threshold=at) for name, at in shown.items()]
    expected += [ours.ExpectImageNotToShowConcept(column=name, threshold=at) for name, at in absent.items()]
    columns = [
        ROW_ID,
        "source_sha256",
        "role",
        "split",
        "source",
        "caption",
        "format",
        "width_px",
        "height_px",
        "phash",
        "declared",
        "stored",
        *shown,
        *absent,
    ]
    return TableSuite(role, table, [*not_null(columns), *expected])


def dataset_suite(table: pd.DataFrame, rules: SuiteRules) -> TableSuite:
    """Return what is expected of the images of both roles together: balance, no duplicates, no overlap of splits.

    Args:
        table: As `image_table` makes it, all rows.
        rules: The numbers.
    """
    load_great_expectations()
    import great_expectations.expectations as gxe

    least = int(-(-rules.min_role_rate * len(table) // 1))
    expected: list[Expectation] = [
        gxe.ExpectColumnValuesToBeUnique(column=ROW_ID),
        gxe.ExpectColumnDistinctValuesToEqualSet(column="role", value_set=list(ROLES)),
        gxe.ExpectColumnValuesToBeInSet(column="twin_in_other_split", value_set=["none"]),
    ]
    for role in ROLES:
        count = f"{role}_images"
        expected.append(gxe.ExpectColumnMinToBeBetween(column=count, min_value=max(least, 1)))
        expected.append(
            gxe.ExpectColumnMinToBeBetween(column=f"{role}_held_out", min_value=rules.min_held_out)
        )
    counts = [f"{role}_{what}" for role in ROLES for what in ("images", "held_out")]
    return TableSuite(
        "dataset", table, [*not_null([ROW_ID, "role", "twin_in_other_split", *counts]), *expected]
    )


def triplet_suite(table: pd.DataFrame, rules: SuiteRules, *, clean_threshold: float) -> TableSuite:
    """Return what is expected of triplets.

    Args:
        table: As `triplet_table` makes it.
        rules: The numbers.
        clean_threshold: Every score of a censored picture is below this.
    """
    load_great_expectations()
    import great_expectations.expectations as gxe

    from safegen.data import expectations as ours

    pictures = ("unsafe", "censored", "benign")
    expected: list[Expectation] = [
        gxe.ExpectTableRowCountToBeBetween(min_value=rules.min_rows),
        gxe.ExpectColumnValuesToBeUnique(column=ROW_ID),
        ours.ExpectImagesToDiffer(column_A="unsafe_sha", column_B="censored_sha"),
        ours.ExpectImagesToDiffer(column_A="unsafe_sha", column_B="benign_sha"),
        ours.ExpectImagesToDiffer(column_A="censored_sha", column_B="benign_sha"),
        gxe.ExpectColumnValuesToBeBetween(column="rounds", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="block_px", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="regions", min_value=1),
        gxe.ExpectColumnValuesToBeInSet(column="unsafe_split", value_set=["train"]),
        gxe.ExpectColumnValuesToBeInSet(column="benign_split", value_set=["train"]),
        ours.ExpectImageNotToShowConcept(column="censored_score", threshold=clean_threshold),
    ]
    for name in pictures:
        expected.append(gxe.ExpectColumnValuesToMatchRegex(column=f"{name}_sha", regex=DIGEST))
        expected.append(
            ours.ExpectImageBlobToDecodeToSize(column_A=f"{name}_declared", column_B=f"{name}_stored")
        )
    columns = [
        ROW_ID,
        "unsafe_caption",
        "benign_caption",
        "rounds",
        "block_px",
        "regions",
        "unsafe_split",
        "benign_split",
        "censored_score",
        *(f"{name}_{what}" for name in pictures for what in ("sha", "declared", "stored")),
    ]
    return TableSuite("triplets", table, [*not_null(columns), *expected])


def not_null(columns: Sequence[str]) -> list[Expectation]:
    """Return that no value of these columns is missing: without it, other expectations would leave the row out."""
    load_great_expectations()
    import great_expectations.expectations as gxe

    return [gxe.ExpectColumnValuesToNotBeNull(column=column) for column in columns]
