"""The code location of the demo. `run` sets the environment variables that it reads."""

import os

import dagster as dg

from octogen_dagster import (
    AnalyticsHubResource,
    OctogenControlPlaneResource,
    OctogenResource,
    OctogenSource,
    ParquetSnapshotIOManager,
    build_catalogs_asset,
    build_linked_datasets_asset,
    build_listing_sensor,
    build_products_asset,
    catalog_partitions,
)
from octogen_dagster.sharing.analytics_hub import EMULATOR_VARIABLE

SNAPSHOTS_VARIABLE = "OCTOGEN_DEMO_SNAPSHOTS"

catalogs = build_catalogs_asset(partitions_def=catalog_partitions)
products = build_products_asset("octogen_products", partitions_def=catalog_partitions)

linked_datasets = build_linked_datasets_asset(control_plane=True)

defs = dg.Definitions(
    assets=[catalogs, products],
    resources={
        "octogen": OctogenResource(base_url=dg.EnvVar("OCTOGEN_BASE_URL")),
        "io_manager": ParquetSnapshotIOManager(base_dir=os.environ[SNAPSHOTS_VARIABLE]),
    },
)
if EMULATOR_VARIABLE in os.environ:  # without it the client would call Google
    defs = dg.Definitions.merge(
        defs,
        dg.Definitions(
            assets=[linked_datasets],
            sensors=[build_listing_sensor(OctogenSource(), linked_datasets)],
            resources={
                "analytics_hub": AnalyticsHubResource(project="my-project"),
                "octogen_control_plane": OctogenControlPlaneResource(principal="user:me@my.org"),
            },
        ),
    )
