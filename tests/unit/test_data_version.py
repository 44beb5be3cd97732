"""The digest of a snapshot's rows, and the data version that they keep."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from octogen_dagster.assets.latest import catalog_version
from octogen_dagster.snapshots.data_version import SnapshotVersion, content_of, snapshot_version

ROWS = pl.LazyFrame(
    {
        "uuid": ["a", "b", "b"],
        "current_price": [1.0, None, None],
        "tags": [["x", None], [], None],
        "brand": [{"name": "Acme"}, None, None],
        "fetched_at": datetime(2026, 11, 30, tzinfo=UTC),
    }
)


def test_rows_in_another_order_with_other_volatile_values_have_the_same_digest() -> None:
    later = pl.lit(datetime(2026, 12, 1, tzinfo=UTC)).alias("fetched_at")
    read_later = ROWS.reverse().with_columns(later)
    assert content_of(read_later, {}, ["fetched_at"]) == content_of(ROWS, {}, ["fetched_at"])
    assert content_of(read_later, {}) != content_of(ROWS, {})


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
    assert content_of(ROWS.with_columns(**changed), {}) != content_of(ROWS, {})


def test_rows_of_which_there_are_more_or_fewer_have_another_digest() -> None:
    digests = [content_of(ROWS.head(rows), {}) for rows in range(4)]
    assert len({*digests, content_of(pl.concat([ROWS, ROWS]), {})}) == 5


def test_rows_of_another_search_have_another_digest_and_rows_without_a_column_have_one() -> None:
    assert content_of(ROWS, {"octogen.catalogs": "[]"}) != content_of(ROWS, {"octogen.run_id": "1"})
    assert content_of(ROWS.select("fetched_at"), {}) != content_of(ROWS.select(), {})


def version(
    content: str, catalog: str, last: SnapshotVersion | None = None, *, is_stored: bool = True
) -> SnapshotVersion:
    """The version of rows after another one."""
    tags = {"dagster/data_version": last.data_version, **last.tags} if last else {}
    return snapshot_version(content, catalog, tags, is_stored=is_stored, run_id="run")


def test_a_snapshot_keeps_its_data_version_until_its_rows_change() -> None:
    first = version("a", "1")
    assert (first.data_version, first.unchanged_in) == ("1", None)
    assert version("a", "1", first) == first
    assert version("a", "2", first) == first._replace(unchanged_in="2")
    changed = version("b", "3", first)
    assert (changed.data_version, changed.unchanged_in) == ("3", None)
    assert version("a", "").data_version == "a"


def test_other_rows_of_the_same_version_of_a_catalog_have_another_data_version() -> None:
    first = version("a", "1")
    other = version("b", "1", first)
    assert (other.data_version, catalog_version(other.data_version)) == ("1 read again in run", "1")
    assert version("b", "1", other) == other
    assert version("b", "2", other) == other._replace(unchanged_in="2")


@pytest.mark.parametrize("catalog", ["", "1"])
def test_a_snapshot_in_place_of_one_that_was_not_reported_has_another_data_version(
    catalog: str,
) -> None:
    first = version("a", catalog)
    assert version("a", catalog, first, is_stored=False).data_version != first.data_version
