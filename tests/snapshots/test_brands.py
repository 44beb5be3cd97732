"""The brands asset in Dagster."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster import (
    BRANDS_SCHEMA,
    build_product_brands_asset,
    build_products_asset,
    catalog_partitions,
)


def test_each_partition_has_the_brands_of_its_own_products(
    tmp_path: Path, resources: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["northpeak", "strada"])
    products = build_products_asset("products", partitions_def=catalog_partitions)
    brands = build_product_brands_asset(products)
    for key in ("northpeak", "strada"):
        dg.materialize(
            [products, brands], resources=resources, instance=instance, partition_key=key
        )

    for key, products_of_catalog in (("northpeak", 230), ("strada", 120)):
        frame = pl.read_parquet(tmp_path / "products_brands" / f"{key}.parquet")
        assert frame.schema == BRANDS_SCHEMA
        assert frame["products"].sum() == products_of_catalog
        assert frame["brand"].n_unique() > 1


def test_the_brands_take_the_arguments_of_an_asset() -> None:
    products = build_products_asset("products", key_prefix="shop")
    eager = dg.AutomationCondition.eager()
    brands = build_product_brands_asset(
        products, name="brands", automation_condition=eager, owners=["team:data"]
    )
    (spec,) = brands.specs
    assert spec.key == dg.AssetKey("brands")
    assert [dep.asset_key for dep in spec.deps] == [products.key]
    assert (spec.automation_condition, spec.owners) == (eager, ["team:data"])
    assert "shop/products" in (spec.description or "")
