"""The code location of the demo. The command sets the environment variables that it reads.

The sensors request a run for each new or re-indexed catalog and for each listing, and an asset with
an automation condition follows. A pipeline of yours looks the same.
"""

import importlib.util
import os
from pathlib import Path

import dagster as dg
import polars as pl

from octogen_dagster import (
    HISTORY_SCHEMA,
    AnalyticsHubResource,
    BackInStock,
    Disappeared,
    DuckDBTables,
    OctogenControlPlaneResource,
    OctogenResource,
    OctogenSource,
    OutOfStock,
    ParquetSnapshotIOManager,
    PriceDropped,
    PriceRose,
    ProductSearch,
    ShopCatalogs,
    build_catalog_sensor,
    build_catalogs_asset,
    build_linked_datasets_asset,
    build_listing_sensor,
    build_price_alerts_asset,
    build_price_position_asset,
    build_product_brands_asset,
    build_product_changes_asset,
    build_product_details_asset,
    build_product_history_asset,
    build_products_asset,
    build_snapshot_checks,
    build_snapshot_schedule,
    build_table_asset,
    catalog_partitions,
    follow_upstream,
)

RUNNING = dg.DefaultSensorStatus.RUNNING
FOLLOW = follow_upstream()
SECONDS_BETWEEN_TICKS = 5  # a day of the demo is short: five minutes are the default
HAS_HUB = "ANALYTICS_HUB_EMULATOR_HOST" in os.environ  # else the client would call Google
HAS_DUCKDB = importlib.util.find_spec("duckdb") is not None
SNAPSHOTS = os.environ.get("OCTOGEN_DEMO_SNAPSHOTS", "snapshots")


def spec(name: str, group: str, description: str | None = None) -> dg.AssetSpec:
    """What the UI shows of an asset."""
    return dg.AssetSpec(name, group_name=group, owners=["team:pricing"], description=description)


LISTED = "The catalogs of the local Octogen. Each is a partition of the products."
READ = "The products of each catalog. One price is wrong on the last day: see its checks."
CHANGED = "What appeared, disappeared and changed since the day before. Follows by itself."
KEPT = "What each product cost, and whether it was in stock, since the first day."
TOLD = "What got cheaper, dearer, sold out or available, each event once."
OWNED = "Own articles, with pages on which competitors sell them. Their prices are invented."
LOADED = "The same rows as a table, for SQL. Each run replaces those of its catalog."
FOUND = "A search with a schedule. Change it for one run in the launchpad."

catalogs = build_catalogs_asset(
    spec("octogen_catalogs", "catalogs", LISTED),
    partitions_def=catalog_partitions,
    automation_condition=FOLLOW,
)
products = build_products_asset(
    spec("octogen_products", "catalogs", READ), partitions_def=catalog_partitions, deps=[catalogs]
)
changes = build_product_changes_asset(
    products, name=spec("octogen_products_changes", "prices", CHANGED), automation_condition=FOLLOW
)
brands = build_product_brands_asset(
    products, name=spec("octogen_products_brands", "prices"), automation_condition=FOLLOW
)
history = build_product_history_asset(
    products, name=spec("octogen_products_history", "history", KEPT), automation_condition=FOLLOW
)
alerts = build_price_alerts_asset(
    history,
    [
        PriceDropped(percent=10, max_percent=5),
        PriceRose(percent=50, max_percent=5),  # such as the price that is wrong on the last day
        OutOfStock(max_percent=5),
        BackInStock(max_percent=5),
        Disappeared(max_percent=5),
    ],
    name=spec("octogen_products_alerts", "history", TOLD),
    automation_condition=FOLLOW,
)


@dg.asset(
    group_name="prices",
    owners=["team:pricing"],
    description=OWNED,
    ins={"past": dg.AssetIn(history.key, metadata={"allow_missing_partitions": True})},
    automation_condition=FOLLOW,
)
def articles(past: dict[str, pl.LazyFrame]) -> pl.DataFrame:
    """The first prices of competitors, moved a little, stand for the table of a shop."""
    rows = pl.concat([pl.LazyFrame(schema=HISTORY_SCHEMA), *past.values()])
    known = rows.drop_nulls("current_price").sort("uuid", "valid_from")
    first = known.unique("uuid", keep="first", maintain_order=True)
    place = pl.int_range(pl.len())
    return first.select(
        pl.format("A-{}", place // 2).alias("sku"),  # two pages each
        "product_url",
        (pl.col("current_price") * (0.92 + place % 17 / 100)).round(2).alias("own_price"),
        "currency",
        pl.col("catalog_key").alias("category"),
    ).collect()


position = build_price_position_asset(
    history, articles, name=spec("price_position", "prices"), automation_condition=FOLLOW
)
sweaters = build_products_asset(
    spec("sweaters", "prices", FOUND),
    ProductSearch(q="sweater", price_max=100),
    deps=[catalogs],
    automation_condition=FOLLOW,
)
sweater_details = build_product_details_asset(
    sweaters,
    name=spec("sweaters_details", "prices"),
    only_changed=True,
    automation_condition=FOLLOW,
)

defs = dg.Definitions(
    assets=[
        *(catalogs, products, changes, brands, history, alerts),
        *(articles, position, sweaters, sweater_details),
    ],
    asset_checks=[
        # One wrong price is enough. By default one in a thousand may be wrong.
        *build_snapshot_checks(products, max_bad_price_fraction=0),
        *build_snapshot_checks(sweaters),
        *build_snapshot_checks(history),
        *build_snapshot_checks(alerts),
    ],
    sensors=[
        build_catalog_sensor(
            products,
            minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
            default_status=RUNNING,
        ),
        dg.AutomationConditionSensorDefinition(
            "octogen_automation",
            target=dg.AssetSelection.all(),
            emit_backfills=False,  # Dagster begins backfills every half a minute
            minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
            default_status=RUNNING,
        ),
    ],
    schedules=[build_snapshot_schedule(sweaters, "0 6 * * *")],
    executor=dg.in_process_executor,
    resources={
        "octogen": OctogenResource(
            base_url=dg.EnvVar("OCTOGEN_BASE_URL"),
            catalogs=ShopCatalogs(hosts=os.environ.get("OCTOGEN_SHOPS", "acme.example").split(",")),
        ),
        "io_manager": ParquetSnapshotIOManager(base_dir=SNAPSHOTS),
    },
)
if HAS_DUCKDB:
    shop = DuckDBTables(database=str(Path(SNAPSHOTS).with_name("shop.duckdb")))
    tables = [
        build_table_asset(
            each,
            shop,
            name=spec(f"{each.key.path[-1]}_table", "tables", LOADED),
            automation_condition=FOLLOW,
        )
        for each in (products, history)
    ]
    defs = dg.Definitions.merge(defs, dg.Definitions(assets=tables))
if HAS_HUB:
    linked_datasets = build_linked_datasets_asset(
        spec("octogen_linked_datasets", "catalogs"), control_plane=True
    )
    listing_sensor = build_listing_sensor(
        OctogenSource(),
        linked_datasets,
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=RUNNING,
    )
    hub = AnalyticsHubResource(project="my-project")
    control_plane = OctogenControlPlaneResource(principal="user:me@my.org")
    defs = dg.Definitions.merge(
        defs,
        dg.Definitions(
            assets=[linked_datasets],
            sensors=[listing_sensor],
            resources={"analytics_hub": hub, "octogen_control_plane": control_plane},
        ),
    )
