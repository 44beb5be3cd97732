"""The digest of a snapshot's rows, and the data version that they keep."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import polars as pl
import pytest

from octogen_dagster.snapshots.data_version import content_of, version_of

ROWS = pl.LazyFrame(
    {
        "uuid": ["a", "b", "b"],
        "current_price": [1.0, None, None],
        "tags": [["x", None], [], None],
        "brand": [{"name": "Acme"}, None, None],
        "fetched_at": datetime(2026, 11, 30, tzinfo=timezone.utc),
    }
)


def test_rows_in_another_order_that_were_read_at_another_time_have_the_same_digest() -> None:
    later = pl.lit(datetime(2026, 12, 1, tzinfo=timezone.utc)).alias("fetched_at")
    assert content_of(ROWS.reverse().with_columns(later)) == content_of(ROWS)


@pytest.mark.parametrize(
    "changed",
    [
        {"current_price": pl.col("current_price").fill_null(0.0)},
        {"current_price": pl.col("current_price").cast(pl.Float32)},
        {"tags": pl.col("tags").fill_null([])},
        {"brand": pl.col("brand").shift()},
        {"title": pl.lit(None)},
    ],
)
def test_rows_with_another_value_or_type_have_another_digest(changed: dict[str, Any]) -> None:
    assert content_of(ROWS.with_columns(**changed)) != content_of(ROWS)


def test_rows_of_which_there_are_more_or_fewer_have_another_digest() -> None:
    digests = [content_of(ROWS.head(rows)) for rows in range(4)]
    assert len({*digests, content_of(pl.concat([ROWS, ROWS]))}) == 5


def test_a_snapshot_keeps_its_data_version_until_its_rows_change() -> None:
    first = version_of(ROWS, "1", {})
    tags = {"dagster/data_version": "1", **first.tags}
    assert (first.data_version, first.same_in) == ("1", None)
    same = version_of(ROWS, "2", tags)
    assert (same.data_version, same.tags, same.same_in) == ("1", first.tags, "2")
    changed = version_of(ROWS.head(1), "3", tags)
    assert (changed.data_version, changed.same_in) == ("3", None)
    assert version_of(ROWS, "1", {}).data_version == "1"  # nothing was reported before
    assert version_of(ROWS, None, {}).data_version == content_of(ROWS)
