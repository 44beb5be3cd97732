"""The code location of the demo. The command sets the environment variables that it reads.

The sensors request a run for each new or re-indexed catalog, each listing and each export of the
URL list, and an asset with an automation condition follows. A pipeline of yours looks the same.
"""

import importlib.util
import os
from pathlib import Path

import dagster as dg
import polars as pl

from octogen_dagster import (
    AnalyticsHubResource,
    OctogenControlPlaneResource,
    OctogenResource,
    OctogenSource,
    ParquetSnapshotIOManager,
    ProductSearch,
    ShopCatalogs,
    build_alert_sensor,
    build_catalog_sensor,
    build_catalogs_asset,
    build_history_asset,
    build_linked_datasets_asset,
    build_linked_snapshot_asset,
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
    build_url_list_asset,
    build_url_list_checks,
    build_url_list_export_asset,
    build_url_list_sensor,
    build_url_matches_asset,
    catalog_partitions,
    follow_upstream,
)
from octogen_dagster.alerts import (
    BackInStock,
    BelowFloor,
    Disappeared,
    OutOfStock,
    PriceDropped,
    PriceRose,
    Undercut,
)
from octogen_dagster.schemas import HISTORY_SCHEMA
from octogen_dagster.tables import DuckDBTables

RUNNING = dg.DefaultSensorStatus.RUNNING
FOLLOW = follow_upstream()
SECONDS_BETWEEN_TICKS = 5  # a day of the demo is short: five minutes are the default
HAS_HUB = "ANALYTICS_HUB_EMULATOR_HOST" in os.environ  # else the client would call Google
HAS_DUCKDB = importlib.util.find_spec("duckdb") is not None
PROJECT = "my-project"
SNAPSHOTS = os.environ.get("OCTOGEN_DEMO_SNAPSHOTS", "snapshots")
MESSAGES = Path(SNAPSHOTS).with_name("told.txt")


def spec(name: str, group: str, description: str | None = None) -> dg.AssetSpec:
    """Return the spec of an asset, which the UI shows."""
    return dg.AssetSpec(name, group_name=group, owners=["team:pricing"], description=description)


LISTED = "The catalogs of the local Octogen. Each is a partition of the products."
READ = "The products of each catalog. One price is wrong on the last day: see its checks."
CHANGED = "What appeared, disappeared and changed since the day before. Follows by itself."
KEPT = "What each product cost, and whether it was in stock, since the first day."
TOLD = "What got cheaper, dearer, sold out or available, each event once."
OWNED = "Own articles, with pages on which competitors sell them. Their prices are invented."
BELOW = "Which competitor went below an own price on day 3, and below its floor on day 5."
LOADED = "The same rows as a table, for SQL. Each run replaces those of its catalog."
FOUND = "A search with a schedule. Change it for one run in the launchpad."
MATCHED = "Competitors' pages that are matched with own articles, written as somebody copied them."
COMPARED = "Own prices beside those that Octogen exported of the matched pages, without a lookup."

catalogs = build_catalogs_asset(
    spec("octogen_catalogs", "catalogs", LISTED),
    partitions_def=catalog_partitions,
    automation_condition=FOLLOW,
)
products = build_products_asset(
    spec("octogen_products", "catalogs", READ), partitions_def=catalog_partitions, deps=[catalogs]
)
brands = build_product_brands_asset(
    products, name=spec("octogen_products_brands", "prices"), automation_condition=FOLLOW
)
history = build_product_history_asset(
    products, name=spec("octogen_products_history", "history", KEPT), automation_condition=FOLLOW
)
changes = build_product_changes_asset(
    history, name=spec("octogen_products_changes", "prices", CHANGED), automation_condition=FOLLOW
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
    # A frame alone could not be loaded before the first history is there.
    rows = pl.concat([pl.LazyFrame(schema=HISTORY_SCHEMA), *past.values()])
    known = rows.drop_nulls(["current_price", "currency"]).sort("uuid", "valid_from")
    first = known.unique("uuid", keep="first", maintain_order=True)
    number = pl.col("product_url").str.extract(r"(\d+)$").cast(pl.Int64)
    letter, price = pl.col("catalog_key").str.slice(0, 1), pl.col("current_price")
    return first.select(
        pl.format("{}-{}", letter.str.to_uppercase(), number // 2).alias("sku"),  # two pages each
        "product_url",
        (price * (0.92 + number % 17 / 100)).round(2).alias("own_price"),
        (price / 2).round(2).alias("map_price"),
        "currency",
        pl.col("catalog_key").alias("category"),
        pl.col("valid_from").alias("fetched_at"),
    ).collect()


own_prices = build_history_asset(
    articles,
    key=["sku", "product_url"],
    tracked=["own_price", "map_price", "currency"],
    name=spec("articles_history", "history"),
    automation_condition=FOLLOW,
)
own_alerts = build_price_alerts_asset(
    history,
    [Undercut(percent=40), BelowFloor()],  # prices of the sandbox fall by less, most of the time
    own=own_prices,
    name=spec("octogen_products_own_alerts", "history", BELOW),
    automation_condition=FOLLOW,
)


def tell(events: pl.DataFrame) -> None:
    """Write to a file who is below, where a pipeline of yours tells people."""
    line = "{at:%Y-%m-%d} {rule}: {catalog_key} sells {sku} at {after} {currency}, not {before}\n"
    with MESSAGES.open("a") as file:
        file.writelines(line.format(**event) for event in events.iter_rows(named=True))


position = build_price_position_asset(
    history, articles, name=spec("octogen_products_position", "prices"), automation_condition=FOLLOW
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
        *(articles, own_prices, own_alerts, position, sweaters, sweater_details),
    ],
    asset_checks=[
        # One wrong price is enough. By default one in a thousand may be wrong.
        *build_snapshot_checks(products, max_bad_price_percent=0),
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
        build_alert_sensor(
            own_alerts,
            tell,
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
            catalog_source=ShopCatalogs(
                hosts=os.environ.get("OCTOGEN_SHOP_HOSTS", "acme.example").split(",")
            ),
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

    @dg.asset(
        group_name="prices",
        owners=["team:pricing"],
        description=MATCHED,
        automation_condition=FOLLOW,
    )
    def matches(articles: pl.DataFrame) -> pl.DataFrame:
        """Of ten pages, one is of a shop without a catalog; others are written in three ways."""
        url = pl.col("product_url")
        number = url.str.extract(r"(\d+)$").cast(pl.Int64)
        elsewhere = pl.format("https://www.elsewhere.example/products/{}-{}", "category", number)
        return articles.select(
            "sku",
            pl.when(number % 10 == 3)
            .then(elsewhere)
            .when(number % 3 == 0)
            .then(url + "?utm_source=matching")
            .when(number % 3 == 1)
            .then(url.str.replace("/products/", "/collections/all/products/", literal=True))
            .otherwise(url)
            .alias("url"),
            "own_price",
            "currency",
        )

    competitor_urls = build_url_list_asset(
        spec("competitor_urls", "prices"), matches, automation_condition=FOLLOW
    )
    export = build_url_list_export_asset(competitor_urls, name=spec("competitor_export", "prices"))
    coverage = build_linked_snapshot_asset(
        export, name=spec("competitor_coverage", "prices"), view="url_coverage_v1"
    )
    offers = build_linked_snapshot_asset(export, name=spec("competitor_offers", "prices"))
    matched = build_url_matches_asset(
        competitor_urls, coverage, offers, name=spec("competitor_matches", "prices")
    )
    competitors = [export, coverage, offers, matched]

    @dg.asset(
        group_name="prices",
        owners=["team:pricing"],
        description=COMPARED,
        ins={"theirs": dg.AssetIn(matched.key)},
        automation_condition=FOLLOW,
    )
    def price_comparison(theirs: pl.DataFrame) -> pl.DataFrame:
        """Compare prices of the same currency; `difference` is the own price minus theirs."""
        difference = pl.col("own_price") - pl.col("current_price")
        return theirs.filter(pl.col("currency") == pl.col("own_currency")).select(
            *("sku", "url", "title", "currency", "own_price", "current_price"),
            difference.round(2).alias("difference"),
        )

    linked_datasets = build_linked_datasets_asset(
        spec("octogen_linked_datasets", "catalogs"), control_plane=True
    )
    listing_sensor = build_listing_sensor(
        linked_datasets,
        OctogenSource(),
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=RUNNING,
    )
    url_list_sensor = build_url_list_sensor(
        competitors, minimum_interval_seconds=SECONDS_BETWEEN_TICKS, default_status=RUNNING
    )
    hub = AnalyticsHubResource(project=PROJECT)
    control_plane = OctogenControlPlaneResource(principal="user:me@my.org")
    defs = dg.Definitions.merge(
        defs,
        dg.Definitions(
            assets=[linked_datasets, matches, competitor_urls, *competitors, price_comparison],
            asset_checks=build_url_list_checks(competitor_urls),
            sensors=[listing_sensor, url_list_sensor],
            resources={
                "analytics_hub": hub,
                "bigquery": hub,
                "octogen_control_plane": control_plane,
            },
        ),
    )
