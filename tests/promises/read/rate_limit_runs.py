"""Runs that share a rate limit, each in its own process. A fork server imports this module."""

import os
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import dagster as dg

import octogen_dagster as od

PAGE_SIZE = 10


def by_dagster(
    catalog: str, environment: Mapping[str, str], snapshots: str, signals: Connection
) -> None:
    """Run Dagster: send "ready", wait for a message before the read, and send what was read."""
    os.environ.update(environment)

    class IOManagerAtTheSignal(od.ParquetSnapshotIOManager):
        def publication(self, *arguments: Any) -> Any:
            signals.send("ready")
            signals.recv()
            return super().publication(*arguments)

    products = od.build_products_asset(
        "products", od.ProductSearch(page_size=PAGE_SIZE), partitions_def=od.catalog_partitions
    )
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("octogen_catalogs", [catalog])
        result = dg.materialize(
            [products],
            partition_key=catalog,
            instance=instance,
            resources={
                "octogen": od.OctogenResource(catalog_source=od.GrantedCatalogs()),
                "io_manager": IOManagerAtTheSignal(base_dir=snapshots),
            },
        )
    (made,) = result.asset_materializations_for_node("products")
    signals.send(
        [
            made.metadata[name].value
            for name in ("dagster/partition_row_count", "octogen/rate_limit_wait_seconds")
        ]
    )
