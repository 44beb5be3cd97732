"""The demo's code location; `run.py` says by environment variables where everything is."""

import os

import dagster as dg

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    build_catalogs_asset,
    build_products_asset,
    catalog_partitions,
)

SNAPSHOTS_VARIABLE = "OCTOGEN_DEMO_SNAPSHOTS"

catalogs = build_catalogs_asset(partitions_def=catalog_partitions)
products = build_products_asset("octogen_products", partitions_def=catalog_partitions)

defs = dg.Definitions(
    assets=[catalogs, products],
    resources={
        "octogen": OctogenResource(base_url=dg.EnvVar("OCTOGEN_BASE_URL")),
        "io_manager": ParquetSnapshotIOManager(base_dir=os.environ[SNAPSHOTS_VARIABLE]),
    },
)
