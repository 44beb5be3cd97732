"""A code location with one catalog as Parquet, as a user would write it."""

import dagster as dg

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_products_asset,
)

defs = dg.Definitions(
    assets=[build_products_asset("catalog", ProductSearch(catalogs=["grand-arcade"]))],
    executor=dg.in_process_executor,
    resources={
        "octogen": OctogenResource(),
        "io_manager": ParquetSnapshotIOManager(base_dir=dg.EnvVar("SNAPSHOTS")),
    },
)
