"""build_product_brands_asset: count products and compare prices by brand."""

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
    """Build an asset with product counts, stock and prices by brand.

    Each brand has one row per currency, because prices in different currencies cannot be compared.
    For the columns, see `octogen_dagster.schemas.BRANDS_SCHEMA`. The asset sends no requests to
    Octogen.

    Args:
        products: An asset with the columns in `octogen_dagster.schemas.PRODUCT_SCHEMA`. The brands
            asset gets the same partitions.
        name: The asset's name or `dagster.AssetSpec`. Defaults to `<products>_brands`.
        asset_arguments: Any other argument for `@dagster.asset`. Pass
            `automation_condition=octogen_dagster.follow_upstream()` to run after each new snapshot.

    Raises:
        ValueError: The asset does not have the product columns, for example because it is a
            catalogs asset.
    """
    require_products(products, "brand")
    given = asset_arguments_of(name or f"{products.key.path[-1]}_brands", asset_arguments)

    @snapshot_asset(
        {
            "partitions_def": products.partitions_def,
            **snapshot_inputs(products=products),
            "description": (
                "Product counts, in-stock shares and price quartiles by brand in "
                f"{products.key.to_user_string()}. Each row is one brand in one currency."
            ),
        },
        given,
        kind=BRANDS_KIND,
        made_from=products,
    )
    def brands(_run: SnapshotRun, partition: str | None, products: Snapshots) -> pl.LazyFrame:
        return product_brands(products.frame(partition))

    return brands
