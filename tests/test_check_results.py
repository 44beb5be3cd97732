"""The results that the checks of both wings share."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest

from octogen_dagster.check_results import hours, not_empty_result, require_max_age


@pytest.mark.parametrize("age", [timedelta(), timedelta(seconds=-1)])
def test_a_maximum_age_is_positive(age: timedelta) -> None:
    with pytest.raises(ValueError, match="max_age must be a positive timedelta or None, not dat"):
        require_max_age(age)


@pytest.mark.parametrize("age", [None, timedelta(seconds=1)])
def test_a_maximum_age_may_be_left_out(age: timedelta | None) -> None:
    require_max_age(age)


@pytest.mark.parametrize(("rows", "passed"), [(0, False), (1_234, True)])
def test_a_table_without_rows_is_empty(rows: int, passed: bool) -> None:
    result = not_empty_result("acme.products", rows, dg.AssetCheckSeverity.WARN)
    assert (result.check_name, result.passed) == ("not_empty", passed)
    assert result.severity is dg.AssetCheckSeverity.WARN
    assert result.description == f"acme.products has {rows:,} rows."
    assert result.metadata["octogen/rows"].value == rows


def test_hours_have_one_decimal_place() -> None:
    assert hours(timedelta(minutes=95)) == 1.6
