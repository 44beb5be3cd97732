"""Snapshots that the pages of `docs/` read."""

from __future__ import annotations

import dagster as dg

from octogen_dagster import (
    NamedCatalogs,
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_products_asset,
    catalog_partitions,
)
from octogen_dagster.sandbox.server import Sandbox

CATALOGS = {"acme": 40, "northpeak": 30}


def make_snapshots(instance: dg.DagsterInstance) -> None:
    """Materialize `octogen_products` for each catalog, and `jackets`, below `snapshots/`."""
    products = build_products_asset("octogen_products", partitions_def=catalog_partitions)
    jackets = build_products_asset("jackets", ProductSearch(q="jacket"))
    instance.add_dynamic_partitions("octogen_catalogs", list(CATALOGS))
    with Sandbox(catalogs=CATALOGS, generation="current") as sandbox:
        resources = {
            "octogen": OctogenResource(
                api_key=sandbox.api_key,
                base_url=sandbox.base_url,
                catalog_source=NamedCatalogs(keys=list(CATALOGS)),
            ),
            "io_manager": ParquetSnapshotIOManager(base_dir="snapshots"),
        }
        for key in CATALOGS:
            dg.materialize([products], instance=instance, partition_key=key, resources=resources)
        dg.materialize([jackets], instance=instance, resources=resources)
