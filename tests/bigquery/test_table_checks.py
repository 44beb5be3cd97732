"""The results of the checks of a table, from facts that a test writes."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest
from google.cloud.bigquery import SchemaField

from octogen_dagster.bigquery.table_checks import build_check_specs, check_results
from octogen_dagster.bigquery.tables import TableFacts, TableName
from octogen_dagster.dagster_parts import hours

TABLE = TableName("my-project", "octogen_acme", "products_current_v1")
ASSET = dg.AssetKey("products")


def results(
    rows: int = 1,
    *,
    columns: tuple[str, ...] = ("uuid",),
    age: timedelta | None = timedelta(hours=3),
    max_age: timedelta | None = timedelta(days=2),
) -> dict[str, dg.AssetCheckResult]:
    facts = TableFacts("TABLE", "US", rows, None, (SchemaField("UUID", "STRING"),))
    found = check_results(TABLE, facts, columns=columns, age=age, max_age=max_age)
    return {str(each.check_name): each for each in found}


def test_a_table_in_order_passes_all_checks() -> None:
    found = results()
    assert {name: (each.passed, each.description) for name, each in found.items()} == {
        "not_empty": (True, f"{TABLE} has 1 rows."),
        "expected_columns": (True, f"{TABLE} has all 1 expected columns."),
        "fresh": (True, f"{TABLE} changed 3 hours ago; 48 are allowed."),
    }


def test_a_table_without_rows_or_columns_fails_its_checks() -> None:
    found = results(0, columns=("title", "uuid", "brand"))
    assert (found["not_empty"].passed, found["expected_columns"].passed) == (False, False)
    assert found["expected_columns"].description == f"{TABLE} lacks title, brand."
    assert found["not_empty"].severity is dg.AssetCheckSeverity.ERROR


@pytest.mark.parametrize(
    ("age", "passed"),
    [(timedelta(hours=2), True), (timedelta(hours=2, seconds=1), False), (None, False)],
)
def test_an_old_or_unknown_modification_is_a_warning(age: timedelta | None, passed: bool) -> None:
    fresh = results(age=age, max_age=timedelta(hours=2))["fresh"]
    assert (fresh.passed, fresh.severity) == (passed, dg.AssetCheckSeverity.WARN)
    if age is None:
        assert "Name the column that does with modified_column" in str(fresh.description)


def test_without_a_maximum_age_there_is_no_check_of_it() -> None:
    assert results(max_age=None).keys() == {"not_empty", "expected_columns"}
    assert [spec.name for spec in build_check_specs(ASSET, None, None)] == [
        "not_empty",
        "expected_columns",
    ]


def test_the_specs_are_those_of_the_results() -> None:
    specs = build_check_specs(ASSET, timedelta(days=2), None)
    assert [spec.name for spec in specs] == list(results())
    assert {spec.asset_key for spec in specs} == {ASSET}
    assert specs[-1].description == "The products changed in the last 48 hours."


def test_hours_are_rounded_to_one_decimal_place() -> None:
    assert hours(timedelta(minutes=100)) == 1.7
