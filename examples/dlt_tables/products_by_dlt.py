"""Load products with dlt into a database that octogen-dagster does not support."""

import tempfile
from typing import Any

import dagster as dg
import dlt
import polars as pl

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ShopCatalogs,
    build_catalogs_asset,
    build_products_asset,
    catalog_partitions,
)

TYPES = {pl.String(): "text", pl.Float64(): "double", pl.Boolean(): "bool", pl.Int64(): "bigint"}
catalogs = build_catalogs_asset(partitions_def=catalog_partitions)
products = build_products_asset("octogen_products", partitions_def=catalog_partitions)


@dg.asset(partitions_def=catalog_partitions, pool="warehouse", kinds={"dlt"})
def loaded_products(octogen_products: pl.LazyFrame) -> None:
    # Nested columns are omitted. `polars.Expr.struct.json_encode` converts a struct to JSON.
    frame = octogen_products.select(
        pl.selectors.by_dtype(*TYPES, pl.Datetime("us", "UTC"))
    ).collect()
    columns: dict[str, Any] = {
        name: {"data_type": TYPES.get(kind, "timestamp")} for name, kind in frame.schema.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        pipeline = dlt.pipeline(
            "octogen",
            pipelines_dir=folder,
            # or redshift, databricks, clickhouse
            destination=dlt.destinations.duckdb("shop.duckdb"),
            dataset_name="octogen",
        )
        pipeline.run(
            dlt.resource(
                [frame.to_arrow()],
                name="octogen_products",
                write_disposition={"disposition": "merge", "strategy": "delete-insert"},
                merge_key="catalog_key",
                columns=columns,
            )
        )


defs = dg.Definitions(
    assets=[catalogs, products, loaded_products],
    resources={
        "octogen": OctogenResource(catalog_source=ShopCatalogs(hosts=["acme.com"])),
        "io_manager": ParquetSnapshotIOManager(base_dir="snapshots"),
    },
)
