"""The builder of the brands of products."""

from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.assets.definition import asset_arguments_of
from octogen_dagster.brands.table import BRANDS_KIND, product_brands
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.loading import Snapshots, snapshot_inputs
from octogen_dagster.snapshots.metadata import require_products


def build_product_brands_asset(
    products: dg.AssetsDefinition,
    *,
    name: str | dg.AssetSpec | None = None,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset: the brands of another asset's products, with their numbers and prices.

    There is a row for each brand and currency, since prices of two currencies do not compare. The
    columns are those of `octogen_dagster.schemas.BRANDS_SCHEMA`. No request is sent.

    Args:
        products: An asset with the columns of `octogen_dagster.schemas.PRODUCT_SCHEMA`. The brands
            asset has the same partitions.
        name: The asset's name or `dagster.AssetSpec`; by default `<products>_brands`.
        asset_arguments: Any other argument of `@dagster.asset`. With
            `automation_condition=octogen_dagster.follow_upstream()` the brands follow each new
            snapshot.

    Raises:
        ValueError: The asset declares other columns, as the table of the catalogs does.
    """
    require_products(products, "brand")
    given = asset_arguments_of(name or f"{products.key.path[-1]}_brands", asset_arguments)

    @snapshot_asset(
        {
            "partitions_def": products.partitions_def,
            **snapshot_inputs(products=products),
            "description": (
                f"The brands in {products.key.to_user_string()}: how many products each has, how "
                "many of them are in stock, and what they cost. A row is a brand in a currency."
            ),
        },
        given,
        kind=BRANDS_KIND,
        made_from=products,
    )
    def brands(_run: SnapshotRun, partition: str | None, products: Snapshots) -> pl.LazyFrame:
        return product_brands(products.frame(partition))

    return brands
