"""Snapshots that the pages of `docs/` read."""

from __future__ import annotations

import dagster as dg

import octogen_dagster as od
from octogen_dagster.sandbox.server import Sandbox

CATALOGS = {"acme": 40, "northpeak": 30}


def make_snapshots(instance: dg.DagsterInstance) -> None:
    """Materialize `octogen_products` for each catalog, and `jackets`, below `snapshots/`."""
    products = od.build_products_asset("octogen_products", partitions_def=od.catalog_partitions)
    jackets = od.build_products_asset("jackets", od.ProductSearch(q="jacket"))
    instance.add_dynamic_partitions("octogen_catalogs", list(CATALOGS))
    with Sandbox(catalogs=CATALOGS, generation="current") as sandbox:
        resources = {
            "octogen": od.OctogenResource(
                api_key=sandbox.api_key,
                base_url=sandbox.base_url,
                catalog_source=od.NamedCatalogs(keys=list(CATALOGS)),
            ),
            "io_manager": od.ParquetSnapshotIOManager(base_dir="snapshots"),
        }
        for key in CATALOGS:
            dg.materialize([products], instance=instance, partition_key=key, resources=resources)
        dg.materialize([jackets], instance=instance, resources=resources)
