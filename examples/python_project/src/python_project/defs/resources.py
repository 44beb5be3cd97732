"""The connection to Octogen and the storage for snapshots."""

import os

import dagster as dg

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ShopCatalogs,
)

SOURCE = ShopCatalogs(hosts=os.environ.get("OCTOGEN_SHOP_HOSTS", "acme.com").split(","))


@dg.definitions
def resources() -> dg.Definitions:
    """Return the resources for all assets."""
    return dg.Definitions(
        resources={
            "octogen": OctogenResource(catalog_source=SOURCE, budget_usd=50),
            "io_manager": ParquetSnapshotIOManager(
                base_dir=os.environ.get("OCTOGEN_SNAPSHOTS", "snapshots")
            ),
        }
    )
