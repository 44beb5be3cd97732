"""Details follow the partitions of their products, or a selection of them."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_product_details_asset,
    build_products_asset,
    catalog_partitions,
    snapshot_days,
)
from octogen_dagster.sandbox.server import Sandbox
from tests import results


@pytest.fixture
def shops() -> Iterator[Sandbox]:
    """Yield a sandbox that refuses no field of a lookup."""
    with Sandbox(catalogs={"northpeak": 230, "strada": 120}, generation="current") as running:
        yield running


@pytest.fixture
def resources(tmp_path: Path, octogen: OctogenResource) -> dict[str, Any]:
    return {"octogen": octogen, "io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path))}


def shown(result: dg.ExecuteInProcessResult, node: str = "products_details") -> dict[str, Any]:
    return results.metadata(result, node)


@pytest.mark.parametrize("damaged", [False, True])
def test_the_details_of_a_day_carry_rows_over_from_the_last_earlier_day(
    tmp_path: Path, resources: dict[str, Any], shops: Sandbox, instance: Any, damaged: bool
) -> None:
    today, before = (
        f"{datetime.now(timezone.utc) - timedelta(days=days):%Y-%m-%d}" for days in (0, 3)
    )
    products = build_products_asset(
        "products", ProductSearch(catalogs=["strada"]), partitions_def=snapshot_days(before)
    )
    details = build_product_details_asset(products, only_changed=True)

    def run() -> dict[str, Any]:
        return shown(
            dg.materialize(
                [products, details], resources=resources, instance=instance, partition_key=today
            )
        )

    run()
    folder = tmp_path / "products_details"
    (folder / f"{today}.parquet").rename(folder / f"{before}.parquet")
    if damaged:
        (folder / f"{before}.parquet").write_bytes(b"PAR1")
    assert run()["octogen/carried_over"] == (0 if damaged else 120)


def test_each_partition_has_its_own_details(
    tmp_path: Path, resources: dict[str, Any], shops: Sandbox, instance: dg.DagsterInstance
) -> None:
    shops.grant("a/b", products=7)
    instance.add_dynamic_partitions("octogen_catalogs", ["strada", "a%2Fb"])
    products = build_products_asset("products", partitions_def=catalog_partitions)
    details = build_product_details_asset(products, only_changed=True)
    for key, count in (("strada", 120), ("a%2Fb", 7), ("a%2Fb", 7)):
        result = dg.materialize(
            [products, details], resources=resources, instance=instance, partition_key=key
        )
        assert shown(result)["dagster/partition_row_count"] == count
    assert shown(result)["octogen/carried_over"] == 7
    stored = [pl.read_parquet(path) for path in (tmp_path / "products_details").iterdir()]
    catalogs = [frame["catalog_key"].unique().to_list() for frame in stored]
    assert sorted(catalogs) == [["a/b"], ["strada"]]
