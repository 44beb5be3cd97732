"""A code location with many catalogs as partitions, as a user would write it."""

import os

import dagster as dg

from octogen_dagster import OctogenResource, ParquetSnapshotIOManager, build_products_asset

catalogs = [f"shop{number:04}" for number in range(int(os.environ["CATALOGS"]))]
defs = dg.Definitions(
    assets=[
        build_products_asset("products", partitions_def=dg.StaticPartitionsDefinition(catalogs))
    ],
    executor=dg.in_process_executor,
    resources={
        "octogen": OctogenResource(),
        "io_manager": ParquetSnapshotIOManager(base_dir=dg.EnvVar("SNAPSHOTS")),
    },
)
