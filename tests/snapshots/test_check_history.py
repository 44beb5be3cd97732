"""Which earlier snapshots a snapshot is compared with."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest

from octogen_dagster import catalog_days, catalog_partitions, snapshot_days
from tests.snapshots.checked import CheckedAsset, numbers, products


@pytest.fixture
def asset(tmp_path: Path, instance: dg.DagsterInstance) -> CheckedAsset:
    """An asset of products, with two catalogs in the instance."""
    instance.add_dynamic_partitions("octogen_catalogs", ["acme", "zen"])
    return CheckedAsset(tmp_path, instance)


def earlier(asset: CheckedAsset, rows: int, partition: str | None = None) -> list[int]:
    """Materialize a number of rows, and return those that the number is compared with."""
    asset.frame = products(rows)
    found = numbers(asset.check("rows_within_bounds", partition))
    return list(found.get("earlier_rows", []))


def day(age: int) -> str:
    return f"{datetime.now(timezone.utc) - timedelta(days=age):%Y-%m-%d}"


def test_the_last_five_that_were_replaced(asset: CheckedAsset) -> None:
    found = [earlier(asset, rows) for rows in range(100, 107)]
    assert found[0] == []
    assert found[3] == [102, 101, 100]
    assert found[6] == [105, 104, 103, 102, 101]


def test_those_of_the_same_search(asset: CheckedAsset) -> None:
    found = []
    for rows, keywords in [(10, "boots"), (99, "all"), (11, "boots"), (98, "all")]:
        asset.metadata = {"octogen/search": dg.MetadataValue.json({"q": keywords})}
        found.append(earlier(asset, rows))
    assert found == [[], [], [10], [99]]


def test_those_of_the_same_search_in_pages_of_another_size(asset: CheckedAsset) -> None:
    found = []
    for rows, page_size in [(10, 100), (11, 20)]:
        search = {"q": "boots", "page_size": page_size}
        asset.metadata = {"octogen/search": dg.MetadataValue.json(search)}
        found.append(earlier(asset, rows))
    assert found == [[], [10]]


def test_those_of_the_same_catalog(asset: CheckedAsset) -> None:
    asset.partitions_def = catalog_partitions
    assert earlier(asset, 10, "acme") == []
    assert earlier(asset, 20, "zen") == []
    assert earlier(asset, 11, "acme") == [10]


def test_the_last_of_each_of_the_days_before(asset: CheckedAsset) -> None:
    asset.partitions_def = catalog_days("2026-01-01")
    assert earlier(asset, 10, f"acme|{day(9)}") == []
    assert earlier(asset, 11, f"acme|{day(9)}") == []
    assert earlier(asset, 12, f"zen|{day(1)}") == []
    assert earlier(asset, 13, f"acme|{day(0)}") == [11]
    assert earlier(asset, 14, f"acme|{day(1)}") == [11]  # a day after it is of no interest
    assert earlier(asset, 15, f"acme|{day(0)}") == [14, 11]


def test_the_days_of_a_month_before(asset: CheckedAsset) -> None:
    asset.partitions_def = snapshot_days("2026-01-01")
    assert earlier(asset, 10, day(33)) == []
    assert earlier(asset, 11, day(1)) == []
    assert earlier(asset, 12, day(2)) == [10]


def test_nulls_are_compared_with_those_of_the_day_before(asset: CheckedAsset) -> None:
    asset.partitions_def = catalog_days("2026-01-01")
    filled = products(10, in_stock=[True] * 10)
    asset.frame = filled
    assert asset.check("nulls", f"acme|{day(2)}").passed
    asset.frame = products(10)
    assert asset.check("nulls", f"zen|{day(1)}").passed
    assert not asset.check("nulls", f"acme|{day(1)}").passed
    asset.frame = filled
    assert asset.check("nulls", f"acme|{day(1)}").passed
