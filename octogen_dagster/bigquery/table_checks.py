"""Checks for a linked table or its snapshot: row count, columns and freshness."""

import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from octogen_dagster.assets.definition import FRESH, hours
from octogen_dagster.sharing.names import TABLE

if TYPE_CHECKING:
    from google.cloud.bigquery import SchemaField

NOT_EMPTY = "not_empty"
EXPECTED_COLUMNS = "expected_columns"

PRODUCT_COLUMNS: tuple[str, ...] = (
    "uuid",
    "catalog_key",
    "product_url",
    "title",
    "brand",
    "current_price",
    "in_stock",
)
"""The documented columns in `products_current_v1`. The view also has other columns."""
DOCUMENTED: Mapping[str | None, Sequence[str]] = {
    TABLE: PRODUCT_COLUMNS,
    "url_coverage_v1": ("url", "normalized_url", "covered", "exported_at"),
}
"""The documented columns of each view."""


def build_check_specs(
    asset: dg.AssetKey,
    max_age: timedelta | None,
    partitions_def: dg.PartitionsDefinition[Any] | None,
) -> list[dg.AssetCheckSpec]:
    """Return the check specs. If `max_age` is None, the `fresh` check is omitted."""
    descriptions = {
        NOT_EMPTY: "The table has rows.",
        EXPECTED_COLUMNS: "The table has the expected columns.",
    }
    if max_age is not None:
        descriptions[FRESH] = f"The table was modified within the last {hours(max_age):g} hours."
    with warnings.catch_warnings():
        # Without partitions, one listing's result would replace another's.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                name, asset=asset, description=description, partitions_def=partitions_def
            )
            for name, description in descriptions.items()
        ]


def check_results(
    subject: object,
    rows: int,
    schema: Sequence["SchemaField"],
    *,
    columns: Sequence[str],
    last_modified: datetime | None,
    max_age: timedelta | None,
) -> list[dg.AssetCheckResult]:
    """Return one result for each spec from `build_check_specs`. Messages begin with `subject`."""
    existing = {field.name.casefold() for field in schema}
    missing = [column for column in columns if column.casefold() not in existing]
    results = [
        dg.AssetCheckResult(
            passed=rows > 0,
            check_name=NOT_EMPTY,
            description=f"{subject} has {rows:,} rows.",
            metadata={"octogen/rows": rows},
        ),
        dg.AssetCheckResult(
            passed=not missing,
            check_name=EXPECTED_COLUMNS,
            description=f"{subject} is missing columns: {', '.join(missing)}."
            if missing
            else f"{subject} has all {len(columns)} expected columns.",
            metadata={"octogen/missing_columns": len(missing)},
        ),
    ]
    if max_age is not None:
        results.append(_freshness(subject, last_modified, max_age))
    return results


def age_of(last_modified: datetime) -> timedelta:
    return datetime.now(UTC) - last_modified


def _freshness(
    subject: object, last_modified: datetime | None, max_age: timedelta
) -> dg.AssetCheckResult:
    age = None if last_modified is None else age_of(last_modified)
    if age is None:
        description = (
            f"{subject} has no known modification time. Set modified_column to the column "
            "with the modification time, or set max_age=None to omit the check."
        )
    else:
        description = (
            f"{subject} was modified {hours(age):g} hours ago; the maximum is {hours(max_age):g} "
            "hours."
        )
    return dg.AssetCheckResult(
        passed=age is not None and age <= max_age,
        check_name=FRESH,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={} if age is None else {"octogen/age_hours": hours(age)},
    )
