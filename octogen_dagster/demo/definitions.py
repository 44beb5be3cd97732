"""The code location of the demo. The command sets the environment variables that it reads.

The sensors request a run for each new or re-indexed catalog and for each listing, and an asset with
an automation condition follows. A pipeline of yours looks the same.
"""

import os

import dagster as dg

from octogen_dagster import (
    AnalyticsHubResource,
    OctogenControlPlaneResource,
    OctogenResource,
    OctogenSource,
    ParquetSnapshotIOManager,
    ProductSearch,
    ShopCatalogs,
    build_catalog_sensor,
    build_catalogs_asset,
    build_linked_datasets_asset,
    build_listing_sensor,
    build_product_brands_asset,
    build_product_changes_asset,
    build_product_details_asset,
    build_product_history_asset,
    build_products_asset,
    build_snapshot_checks,
    build_snapshot_schedule,
    catalog_partitions,
    follow_upstream,
)

RUNNING = dg.DefaultSensorStatus.RUNNING
FOLLOW = follow_upstream()

catalogs = build_catalogs_asset(
    partitions_def=catalog_partitions,
    description="Start here: the catalogs of the local Octogen. Each is a partition of products.",
)
products = build_products_asset(
    "octogen_products",
    partitions_def=catalog_partitions,
    deps=[catalogs],
    description="The products of each catalog. One price is wrong on day 2: see its checks.",
)
changes = build_product_changes_asset(
    products,
    automation_condition=FOLLOW,
    description="What appeared, disappeared and changed since the day before. Follows by itself.",
)
brands = build_product_brands_asset(products, automation_condition=FOLLOW)
history = build_product_history_asset(
    products,
    automation_condition=FOLLOW,
    description="What each product cost, and whether it was in stock, since the first day.",
)
sweaters = build_products_asset(
    "sweaters",
    ProductSearch(q="sweater", price_max=100),
    deps=[catalogs],
    description="A search with a schedule. Change it for one run in the launchpad.",
)
sweater_details = build_product_details_asset(
    sweaters, only_changed=True, automation_condition=FOLLOW
)

catalog_sensor = build_catalog_sensor(products, default_status=RUNNING)

defs = dg.Definitions(
    assets=[catalogs, products, changes, brands, history, sweaters, sweater_details],
    asset_checks=[
        # One wrong price is enough. By default one in a thousand may be wrong.
        *build_snapshot_checks(products, max_bad_price_fraction=0),
        *build_snapshot_checks(sweaters),
        *build_snapshot_checks(history),
    ],
    sensors=[
        catalog_sensor,
        dg.AutomationConditionSensorDefinition(
            "octogen_automation", target=dg.AssetSelection.all(), default_status=RUNNING
        ),
    ],
    schedules=[build_snapshot_schedule(sweaters, "0 6 * * *")],
    executor=dg.in_process_executor,
    resources={
        "octogen": OctogenResource(
            base_url=dg.EnvVar("OCTOGEN_BASE_URL"),
            catalogs=ShopCatalogs(hosts=os.environ.get("OCTOGEN_SHOPS", "acme.example").split(",")),
        ),
        "io_manager": ParquetSnapshotIOManager(
            base_dir=os.environ.get("OCTOGEN_DEMO_SNAPSHOTS", "snapshots")
        ),
    },
)
if "ANALYTICS_HUB_EMULATOR_HOST" in os.environ:  # without it the client would call Google
    linked_datasets = build_linked_datasets_asset(control_plane=True)
    defs = dg.Definitions.merge(
        defs,
        dg.Definitions(
            assets=[linked_datasets],
            sensors=[
                build_listing_sensor(OctogenSource(), linked_datasets, default_status=RUNNING)
            ],
            resources={
                "analytics_hub": AnalyticsHubResource(project="my-project"),
                "octogen_control_plane": OctogenControlPlaneResource(principal="user:me@my.org"),
            },
        ),
    )
