"""An example code location: snapshots of catalogs and of a search, and shared BigQuery listings.

`OCTOGEN_SHOP_HOSTS` holds the hosts of the shops to read, such as `acme.com,zen.example`. With
`OCTOGEN_ENV=sandbox` it reads from a local `octogen-dagster sandbox` instead of Octogen.
"""

import os
from datetime import timedelta

import dagster as dg

from octogen_dagster import (
    AnalyticsHubResource,
    Facet,
    OctogenControlPlaneResource,
    OctogenResource,
    OctogenSource,
    ParquetSnapshotIOManager,
    ProductSearch,
    ShopCatalogs,
    build_catalog_sensor,
    build_catalogs_asset,
    build_linked_datasets_asset,
    build_linked_datasets_checks,
    build_listing_sensor,
    build_product_brands_asset,
    build_product_changes_asset,
    build_product_history_asset,
    build_products_asset,
    build_snapshot_checks,
    build_snapshot_schedule,
    catalog_partitions,
    follow_upstream,
)
from octogen_dagster.api.search import FacetName

source = ShopCatalogs(hosts=os.environ.get("OCTOGEN_SHOP_HOSTS", "acme.com").split(","))
if os.environ.get("OCTOGEN_ENV") == "sandbox":
    base_url = os.environ.get("OCTOGEN_BASE_URL", "http://127.0.0.1:8787/v1")
    octogen = OctogenResource(base_url=base_url, catalog_source=source)
else:
    octogen = OctogenResource(catalog_source=source, budget_usd=50)

catalogs = build_catalogs_asset(partitions_def=catalog_partitions)
products = build_products_asset(
    "octogen_products",
    partitions_def=catalog_partitions,
    deps=[catalogs],
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(days=2)),
)
history = build_product_history_asset(products, automation_condition=follow_upstream())
changes = build_product_changes_asset(history, automation_condition=follow_upstream())
brands = build_product_brands_asset(products, automation_condition=follow_upstream())
linen_dresses = build_products_asset(
    "linen_dresses",
    ProductSearch(q="linen dress", facets=[Facet(name=FacetName.GENDER, values=["female"])]),
    freshness_policy=dg.FreshnessPolicy.cron(
        deadline_cron="0 7 * * *", lower_bound_delta=timedelta(hours=1), timezone="Europe/Berlin"
    ),
)
linked_datasets = build_linked_datasets_asset(control_plane=True)

defs = dg.Definitions(
    assets=[catalogs, products, history, changes, linen_dresses, brands, linked_datasets],
    # They fail if a snapshot is odd, or if a catalog was not materialized for two days, and warn of
    # a subscription that ended.
    asset_checks=[
        *build_snapshot_checks(products),
        *build_snapshot_checks(linen_dresses),
        *build_linked_datasets_checks(linked_datasets, OctogenSource()),
    ],
    # The sensors snapshot a catalog after Octogen indexed it again, and link a listing once it is
    # shared. The schedules snapshot a search every morning and all catalogs every Sunday.
    sensors=[
        build_catalog_sensor(products),
        build_listing_sensor(linked_datasets, OctogenSource()),
    ],
    schedules=[
        build_snapshot_schedule(linen_dresses, "0 6 * * *", execution_timezone="Europe/Berlin"),
        build_snapshot_schedule(products, "0 3 * * 0", execution_timezone="Europe/Berlin"),
    ],
    executor=dg.in_process_executor,  # a run has one step for each asset: no processes
    resources={
        "octogen": octogen,
        "io_manager": ParquetSnapshotIOManager(
            base_dir=os.environ.get("OCTOGEN_SNAPSHOTS", "snapshots")
        ),
        "analytics_hub": AnalyticsHubResource(
            project=os.environ.get("GOOGLE_CLOUD_PROJECT", "my-project")
        ),
        "octogen_control_plane": OctogenControlPlaneResource(
            principal=os.environ.get(
                "OCTOGEN_SUBSCRIBER", "serviceAccount:reader@my-project.iam.gserviceaccount.com"
            )
        ),
    },
)
