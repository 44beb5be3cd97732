"""The demo's code location, which you can use as an example for your own.

Sensors request a run for each new or re-indexed catalog, each listing and each URL-list export.
Automation conditions start the downstream assets. `octogen-dagster demo` sets the environment
variables.
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
SECONDS_BETWEEN_TICKS = 5  # a demo day is short; the default is five minutes
HAS_HUB = "ANALYTICS_HUB_EMULATOR_HOST" in os.environ  # otherwise the client would call Google
HAS_DUCKDB = importlib.util.find_spec("duckdb") is not None
PROJECT = "my-project"
SNAPSHOTS = os.environ.get("OCTOGEN_DEMO_SNAPSHOTS", "snapshots")
MESSAGES = Path(SNAPSHOTS).with_name("notifications.txt")


def spec(name: str, group: str, description: str | None = None) -> dg.AssetSpec:
    """Return an asset spec with a group, an owner and a description for the UI."""
    return dg.AssetSpec(name, group_name=group, owners=["team:pricing"], description=description)


LISTED = "The catalogs in the sandbox. Each catalog is a partition of the products."
READ = "The products in each catalog. On the last day, one price is wrong, so a check fails."
CHANGED = "Products that appeared, disappeared or changed since the previous day."
KEPT = "The price and stock of every product since the first day."
TOLD = "Price drops, price rises and stock changes. Each event occurs once."
OWNED = (
    "Your price list: SKUs, your prices, and competitors' pages for the same products. The data is "
    "invented."
)
BELOW = "Competitors' prices that are below your price (day 3) or below your floor price (day 5)."
LOADED = "The upstream asset as an SQL table. Each run replaces the rows of one catalog."
FOUND = "A scheduled search. In the launchpad, you can change the search for a single run."
MATCHED = "Your SKUs and competitors' URLs. As in real lists, the same URL can have several forms."
COMPARED = "Your prices compared with competitors' prices from the export, without any lookups."

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
        PriceRose(percent=50, max_percent=5),  # such as the wrong price on the last day
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
    """Invent a price list whose prices differ slightly from competitors' first prices."""
    # The input is a dict, so it can be loaded even before the first history exists.
    rows = pl.concat([pl.LazyFrame(schema=HISTORY_SCHEMA), *past.values()])
    known = rows.drop_nulls(["current_price", "currency"]).sort("uuid", "valid_from")
    first = known.unique("uuid", keep="first", maintain_order=True)
    number = pl.col("product_url").str.extract(r"(\d+)$").cast(pl.Int64)
    letter, price = pl.col("catalog_key").str.slice(0, 1), pl.col("current_price")
    return first.select(
        pl.format("{}-{}", letter.str.to_uppercase(), number // 2).alias("sku"),  # two pages each
        "product_url",
        (price * (0.92 + number % 17 / 100)).round(2).alias("price"),
        (price / 2).round(2).alias("map_price"),
        "currency",
        pl.col("catalog_key").alias("category"),
        pl.col("valid_from").alias("fetched_at"),
    ).collect()


price_list = build_history_asset(
    articles,
    key=["sku", "product_url"],
    tracked=["price", "map_price", "currency"],
    name=spec("articles_history", "history"),
    automation_condition=FOLLOW,
)
price_list_alerts = build_price_alerts_asset(
    history,
    [Undercut(percent=40), BelowFloor()],  # prices in the sandbox rarely fall by this much
    price_list=price_list,
    name=spec("octogen_products_price_list_alerts", "history", BELOW),
    automation_condition=FOLLOW,
)


def tell(events: pl.DataFrame) -> None:
    """Write undercut alerts to a file. A real pipeline would notify people instead."""
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
        *(articles, price_list, price_list_alerts, position, sweaters, sweater_details),
    ],
    asset_checks=[
        # The check fails for a single wrong price. By default, one in a thousand can be wrong.
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
            price_list_alerts,
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
        """Return your SKUs and competitors' URLs.

        One in ten URLs is not in any catalog. The other URLs have three different forms.
        """
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
            "price",
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
        """Compare your prices with competitors' prices if both have the same currency.

        `difference` is your price minus the competitor's price.
        """
        difference = pl.col("price") - pl.col("current_price")
        return theirs.filter(pl.col("currency") == pl.col("own_currency")).select(
            *("sku", "url", "title", "currency", "price", "current_price"),
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
