"""Asset checks of a table: it has rows, it has its columns, it is fresh."""

import warnings
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from octogen_dagster.bigquery.tables import TableFacts, TableName
from octogen_dagster.dagster_parts import (
    FRESH,
    NOT_EMPTY,
    NOT_EMPTY_DESCRIPTION,
    hours,
    not_empty_result,
)


def build_check_specs(
    asset: dg.AssetKey,
    max_age: timedelta | None,
    partitions_def: dg.PartitionsDefinition[Any] | None,
) -> list[dg.AssetCheckSpec]:
    """The checks `not_empty`, `expected_columns` and, with a maximum age, `fresh`.

    Args:
        asset: The key of the asset that is checked.
        max_age: The maximum age of the last modification; None leaves `fresh` out.
        partitions_def: The asset's partitions, each of which has results of its own.
    """
    descriptions = {
        NOT_EMPTY: NOT_EMPTY_DESCRIPTION,
        "expected_columns": "The expected columns are there.",
    }
    if max_age is not None:
        descriptions[FRESH] = f"The products changed in the last {hours(max_age):g} hours."
    with warnings.catch_warnings():
        # Without the partitions, the result of one listing would replace that of another.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                name, asset=asset, description=description, partitions_def=partitions_def
            )
            for name, description in descriptions.items()
        ]


def check_results(
    table: TableName | str,
    facts: TableFacts,
    *,
    columns: Sequence[str],
    age: timedelta | None,
    max_age: timedelta | None,
) -> list[dg.AssetCheckResult]:
    """The results of the checks of `build_check_specs`.

    Args:
        table: The table, or what else the messages call it.
        facts: The facts that were read of it.
        columns: The names of the columns to expect, in any case.
        age: The time since the last modification; None if it is not known.
        max_age: The maximum age; None leaves `fresh` out.
    """
    existing = {field.name.casefold() for field in facts.schema}
    missing = [column for column in columns if column.casefold() not in existing]
    results = [
        not_empty_result(table, facts.rows),
        dg.AssetCheckResult(
            passed=not missing,
            check_name="expected_columns",
            description=f"{table} lacks {', '.join(missing)}."
            if missing
            else f"{table} has all {len(columns)} expected columns.",
            metadata={"octogen/missing_columns": len(missing)},
        ),
    ]
    if max_age is not None:
        results.append(_freshness(table, age, max_age))
    return results


def _freshness(
    table: TableName | str, age: timedelta | None, max_age: timedelta
) -> dg.AssetCheckResult:
    if age is None:
        description = (
            f"{table} does not say when its rows changed. Name the column that does with "
            "modified_column, or leave this check out with max_age=None."
        )
    else:
        description = f"{table} changed {hours(age):g} hours ago; {hours(max_age):g} are allowed."
    return dg.AssetCheckResult(
        passed=age is not None and age <= max_age,
        check_name=FRESH,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={} if age is None else {"octogen/age_hours": hours(age)},
    )
