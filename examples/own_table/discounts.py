"""A custom table: the number of discounted products and the median discount for each brand."""

from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ShopCatalogs,
    build_catalogs_asset,
    build_products_asset,
    build_snapshot_checks,
    build_table_asset,
    catalog_partitions,
    follow_upstream,
)
from octogen_dagster.frames.kinds import Check, Published, Rule, TableKind
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.loading import Snapshots, snapshot_inputs
from octogen_dagster.tables import DuckDBTables

COLUMNS = {
    "brand": (pl.String(), "The brand as the merchant shows it; null for products without one."),
    "products": (pl.Int64(), "The number of the brand's products."),
    "reduced": (pl.Int64(), "The number of products that cost less than their original price."),
    "discount": (pl.Float64(), "The median discount of reduced products, in percent."),
}
PRICES = ["current_price", "original_price"]


def reduced_products(discounts: Published) -> dict[str, int]:
    return {"reduced": discounts.rows.select(pl.col("reduced").sum()).collect().item()}


DISCOUNTS = TableKind(
    pl.Schema({name: dtype for name, (dtype, _) in COLUMNS.items()}),
    descriptions={name: description for name, (_, description) in COLUMNS.items()},
    key=("brand",),
    made_from={"brand": ["brand"], "products": ["brand"], "reduced": PRICES, "discount": PRICES},
    sentence=lambda figures, _: f"Reduced products: **{figures['reduced']:,}**",
    parts={"number of reduced products": reduced_products},
    checks={"plausible": Check("No brand is reduced by 90 % or more.", "Check original prices.")},
    rules=[Rule("plausible", "90 % or more", pl.col("discount") >= 90, 0.0, ("brand", "discount"))],
)


def build_discounts_asset(products: dg.AssetsDefinition, **arguments: Any) -> dg.AssetsDefinition:
    @snapshot_asset(
        {"partitions_def": products.partitions_def, **snapshot_inputs(products=products)},
        arguments,
        kind=DISCOUNTS,
        made_from=products,
    )
    def discounts(_run: SnapshotRun, partition: str | None, products: Snapshots) -> pl.LazyFrame:
        """The number of reduced products and the median discount for each brand."""
        now, before = map(pl.col, PRICES)
        brands = products.frame(partition).group_by(brand=pl.col("brand").struct.field("name"))
        found = brands.agg(
            products=pl.len(),
            reduced=(now < before).sum(),
            discount=(100 - 100 * now / before).filter(now < before).median(),
        )
        return found.sort("discount", "brand", descending=[True, False], nulls_last=True)

    return discounts


several, follow = dg.BackfillPolicy.multi_run(100), follow_upstream()
catalogs = build_catalogs_asset(partitions_def=catalog_partitions)
products = build_products_asset(
    "octogen_products", partitions_def=catalog_partitions, backfill_policy=several
)
discounts = build_discounts_asset(products, backfill_policy=several, automation_condition=follow)
table = build_table_asset(
    discounts,
    DuckDBTables(database="shop.duckdb"),
    backfill_policy=several,
    automation_condition=follow,
)

defs = dg.Definitions(
    assets=[catalogs, products, discounts, table],
    asset_checks=build_snapshot_checks(discounts),
    resources={
        "octogen": OctogenResource(catalog_source=ShopCatalogs(hosts=["acme.com"])),
        "io_manager": ParquetSnapshotIOManager(base_dir="snapshots"),
    },
)
