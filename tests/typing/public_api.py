"""Every public name, used as a definitions file, a notebook or an asset uses it.

mypy checks this file; `test_public_api.py` checks that no public name is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from typing import Any

import dagster as dg
import httpx
import httpx2
import polars as pl
from typing_extensions import assert_type

from octogen_dagster import (
    AnalyticsHubResource,
    Appeared,
    BackInStock,
    BelowFloor,
    BigQuerySubscriptionResult,
    BigQueryTables,
    CatalogSource,
    DeltaTables,
    Disappeared,
    DuckDBTables,
    EmailNotifier,
    ExchangeSource,
    Facet,
    GrantedCatalogs,
    IcebergTables,
    MissingAPIKeyError,
    NamedCatalogs,
    OctogenAPIError,
    OctogenClient,
    OctogenControlPlaneResource,
    OctogenError,
    OctogenResource,
    OctogenSource,
    OutOfStock,
    ParquetSnapshotIOManager,
    PostgresTables,
    PriceDropped,
    PriceRose,
    ProductScan,
    ProductSearch,
    ShopCatalogs,
    SlackNotifier,
    SnowflakeTables,
    StaticSource,
    Undercut,
    build_alert_sensor,
    build_catalog_sensor,
    build_catalogs_asset,
    build_costs_asset,
    build_history_asset,
    build_linked_datasets_asset,
    build_linked_datasets_checks,
    build_linked_products_asset,
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
    catalog_days,
    catalog_partitions,
    errors,
    follow_upstream,
    listing_partitions,
    scan_history,
    scan_products,
    snapshot_days,
    subscribe_to_listing,
)
from octogen_dagster.api.catalog_states import CatalogList, CatalogState
from octogen_dagster.api.models import (
    MerchantCatalogSummary,
    MerchantProductListItem,
    MerchantProductListPage,
    MerchantProductUrlLookupResponse,
    MerchantProductView,
)
from octogen_dagster.api.search import AgeGroup, ColorFamily, FacetName, Gender
from octogen_dagster.api.url_lists import CoverageRejectedUrl, CoverageUrlList
from octogen_dagster.bigquery.partitions import listing_of, listing_partition_key
from octogen_dagster.components import (
    OctogenAssetData,
    OctogenComponent,
    OctogenLinkedDatasetsComponent,
)
from octogen_dagster.doctor.checks import diagnose
from octogen_dagster.doctor.findings import Diagnosis, Finding
from octogen_dagster.frames.kinds import Check, Markdown, Published, Rule, Shown, TableKind, Verdict
from octogen_dagster.frames.pictures import price_index_svg
from octogen_dagster.frames.stored import StoredSnapshot
from octogen_dagster.history.files import forget_snapshot
from octogen_dagster.position.table import price_index, price_position, price_summary
from octogen_dagster.schemas import (
    ALERTS_SCHEMA,
    BRANDS_SCHEMA,
    CHANGES_SCHEMA,
    DETAIL_SCHEMA,
    HISTORY_SCHEMA,
    PRODUCT_SCHEMA,
)
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.loading import SnapshotFile, Snapshots, snapshot_inputs
from octogen_dagster.snapshots.partitions import catalog_of, catalog_partition_key
from octogen_dagster.tables.destination import TableConnection, TableDestination

LISTING = "projects/octogen/locations/us/dataExchanges/catalogs/listings/northpeak"

search = ProductSearch(
    q="linen dress",
    facets=[
        Facet(name=FacetName.GENDER, values=[Gender.FEMALE]),
        Facet(name=FacetName.AGE_GROUPS, values=[AgeGroup.ADULT]),
        Facet(name=FacetName.COLOR_FAMILY, values=[ColorFamily.WHITE]),
    ],
    price_max=120,
    catalogs=["northpeak"],
)


class CatalogsOfFile(CatalogSource):
    """A source of one's own."""

    async def fetch(self, client: OctogenClient) -> CatalogList:
        """The catalog that Octogen names for a shop of one's own list."""
        shop = await client.get_domain("northpeak.example")
        return CatalogList([CatalogState(shop.catalogs[0].catalog, product_count=230)])


SOURCES: list[CatalogSource] = [
    GrantedCatalogs(),
    ShopCatalogs(hosts=["northpeak.example"]),
    NamedCatalogs(keys=["northpeak"]),
    CatalogsOfFile(),
]


DESTINATIONS: list[TableDestination] = [
    DuckDBTables(database="shop.duckdb"),
    IcebergTables(warehouse="lake"),
    DeltaTables(base_dir="lake", storage_options={"aws_region": "eu-west-1"}),
    PostgresTables(uri=dg.EnvVar("WAREHOUSE")),
    SnowflakeTables(account="a-b", user="loader", database="SHOP", password=dg.EnvVar("TOKEN")),
    BigQueryTables(project="my-project", dataset="octogen", location="EU"),
]


def tried(destination: TableDestination) -> None:
    """A destination that is connected to, as an asset does it."""
    connection: TableConnection
    with destination.resolved().connect() as connection:
        connection.try_out(destination.default_schema)


def diagnosed_snapshots(octogen: OctogenResource) -> dg.AssetCheckResult:
    """What a check says about the resources."""
    diagnosis = diagnose(octogen=octogen, timeout=20)
    assert_type(diagnosis, Diagnosis)
    failed: list[Finding] = [each for each in diagnosis.findings if each.status == "failed"]
    return dg.AssetCheckResult(passed=diagnosis.ok, description="\n".join(map(str, failed)))


def snapshot_definitions() -> dg.Definitions:
    """Catalogs as Parquet."""
    products = build_products_asset(
        "products", partitions_def=catalog_partitions, retry_policy=dg.RetryPolicy(max_retries=3)
    )
    dresses = build_products_asset("dresses", search, snapshot_days("2026-11-01", "Europe/Berlin"))
    history = build_product_history_asset(
        products, name="past", group_name="past", automation_condition=follow_upstream()
    )
    assets: list[dg.AssetsDefinition] = [
        products,
        dresses,
        build_catalogs_asset(partitions_def=catalog_partitions),
        build_costs_asset("spent", days=90, group_name="costs"),
        build_products_asset("history", partitions_def=catalog_days("2026-11-01")),
        build_product_changes_asset(history, name="changes"),
        build_product_brands_asset(products, name="brands", group_name="brands"),
        history,
        build_product_details_asset(products, only_changed=True, max_failed_percent=10),
        *(build_table_asset(products, each, name=each.kind) for each in DESTINATIONS),
        build_table_asset(dresses, DESTINATIONS[0], "shop", table="frocks", columns=["uuid"]),
        boots,
        build_history_asset(boots, key=["uuid"], tracked=["current_price"]),
        clearance(dresses),
    ]
    return dg.Definitions(
        assets=assets,
        asset_checks=build_snapshot_checks(
            products, max_age=None, max_null_percent={"title": 10}, exclude=["prices"]
        ),
        sensors=[build_catalog_sensor(products, minimum_interval_seconds=600)],
        schedules=[build_snapshot_schedule(dresses, "0 6 * * *", execution_timezone="UTC")],
        resources={
            "octogen": OctogenResource(
                api_key=dg.EnvVar("MY_KEY"),
                concurrency=4,
                reserved_percent=50,
                catalog_source=ShopCatalogs(hosts=["northpeak.example"]),
                budget_usd=50,
            ),
            "io_manager": ParquetSnapshotIOManager(base_dir="snapshots"),
        },
    )


def listing_definitions() -> dg.Definitions:
    """Shared listings in BigQuery."""
    datasets = build_linked_datasets_asset(control_plane=True, partitions_def=listing_partitions)
    products = build_linked_products_asset(
        datasets, max_age=timedelta(days=1), max_bytes_billed=None
    )
    snapshot = build_linked_snapshot_asset(
        datasets, columns=["uuid", "current_price"], where="in_stock", max_bytes_billed=10**10
    )
    exchange = "projects/octogen/locations/us/dataExchanges/catalogs"
    return dg.Definitions(
        assets=[datasets, products, snapshot],
        asset_checks=build_linked_datasets_checks(datasets, StaticSource([LISTING])),
        sensors=[
            build_listing_sensor(datasets, OctogenSource(catalogs=["northpeak"])),
            build_listing_sensor(
                datasets, ExchangeSource(exchange, only_catalogs=False), name="exchange_sensor"
            ),
            build_listing_sensor(datasets, StaticSource([LISTING]), name="static_sensor"),
        ],
        resources={
            "bigquery": AnalyticsHubResource(project="my-project"),
            "analytics_hub": AnalyticsHubResource(project="my-project"),
            "octogen_control_plane": OctogenControlPlaneResource(principal="user:me@example.com"),
        },
    )


@dg.asset
def boots(octogen: OctogenResource) -> ProductScan:
    """An asset that reads a search of its own."""
    return octogen.scan(ProductSearch(q="boots"))


def clearance(products: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """A table of one's own, whose kind says what it is."""

    def note(published: Published) -> Shown:
        before = published.before and published.before()
        return {"note": Markdown("the first" if before is None else "another")}

    def judge(subject: str, entries: Mapping[str, Any]) -> Verdict:
        return Verdict("octogen/note" in entries, f"{subject} has a note.")

    kind = TableKind(
        pl.Schema({"uuid": pl.String()}),
        key=("uuid",),
        key_has_nulls=False,
        parts={"note": note},
        checks={"noted": Check("It has a note.", judge=judge), "named": Check("Each has a name.")},
        rules=[Rule("named", "no name", pl.col("uuid").is_null(), 0.0, ("uuid",))],
    )

    @snapshot_asset(
        snapshot_inputs(stored=products), {"name": "clearance"}, kind=kind, made_from=products
    )
    def made(run: SnapshotRun, partition: str | None, stored: Snapshots) -> pl.LazyFrame:
        snapshots: list[StoredSnapshot] = stored.of_catalog(partition)
        file: SnapshotFile = stored.file(partition)
        run.context.log.info(f"{len(snapshots)} snapshots, {file.row_count} products")
        return file.frame.select("uuid")

    return made


def past() -> pl.DataFrame:
    """The history of products, as of a day, without a snapshot that was wrong."""
    wrong = datetime(2026, 11, 2, 6, 30, tzinfo=timezone.utc)
    forget_snapshot("snapshots", wrong, asset="products_history")
    frame = scan_history(
        "s3://shops/snapshots",
        asset="products_history",
        catalogs=["acme"],
        as_of=date(2026, 11, 1),
        storage_options={"aws_region": "us-east-1"},
    )
    return frame.select(HISTORY_SCHEMA.names()).collect()


def alert_definitions() -> dg.Definitions:
    """Alerts of a history, with checks of their rules and a sensor that tells of them."""
    products = build_products_asset("octogen_products")
    history = build_product_history_asset(products)
    alerts = build_price_alerts_asset(
        history,
        [
            PriceDropped(percent=10, amount=5, where=pl.col("gender") == "women"),
            PriceRose(name="above_usual", percent=20, against="median", days=14),
            BackInStock(),
            OutOfStock(max_products=10, max_percent=1.5),
            Appeared(),
            Disappeared(),
            Undercut(percent=5, by="any"),
            BelowFloor(column="map_price"),
        ],
        automation_condition=follow_upstream(),
    )

    def notify(events: pl.DataFrame) -> None:
        assert events.schema == ALERTS_SCHEMA

    return dg.Definitions(
        assets=[products, history, alerts],
        asset_checks=build_snapshot_checks(alerts),
        sensors=[
            build_alert_sensor(alerts, notify, minimum_interval_seconds=60),
            build_alert_sensor(
                alerts, SlackNotifier(webhook_url=dg.EnvVar("SLACK_WEBHOOK_URL")), name="of_slack"
            ),
            build_alert_sensor(
                alerts,
                EmailNotifier(
                    email_from="prices@shop.example",
                    email_to=["team@shop.example"],
                    smtp_host="mail.shop.example",
                    smtp_port=465,
                    smtp_user="prices",
                    email_password=dg.EnvVar("SMTP_PASSWORD"),
                ),
                name="of_mail",
            ),
        ],
    )


def position(own: pl.DataFrame) -> str:
    """Own prices beside those of competitors, on a day, by brand and over time."""
    history = build_product_history_asset(build_products_asset("octogen_products"))
    asset: dg.AssetsDefinition = build_price_position_asset([history], own, group_name="prices")
    rows = scan_history("snapshots", asset=f"{asset.key.path[-1]}_history")
    found = price_position(rows, own, as_of=date(2026, 11, 1))
    assert price_summary(found, ["brand"]).height <= found.height
    return price_index_svg(price_index(rows, own, days=14))


def url_list_definitions(articles: dg.AssetsDefinition) -> dg.Definitions:
    """Competitors' addresses as a list at Octogen."""
    url_list: dg.AssetsDefinition = build_url_list_asset(
        "competitors",
        articles,
        list_name="q3",
        max_removed_percent=50,
        provisioning_timeout=60,
        automation_condition=follow_upstream(),
    )
    checks = build_url_list_checks(url_list, severity=dg.AssetCheckSeverity.ERROR)
    export: dg.AssetsDefinition = build_url_list_export_asset(url_list, max_age=None)
    coverage = build_linked_snapshot_asset(export, view="url_coverage_v1")
    offers = build_linked_snapshot_asset(export)
    matched = build_url_matches_asset(url_list, coverage, offers, min_covered_percent=90)
    assert_type(matched, dg.AssetsDefinition)
    chain = [export, coverage, offers, matched]
    sensor = build_url_list_sensor(chain, minimum_interval_seconds=3600)
    return dg.Definitions(
        assets=[articles, url_list, *chain], asset_checks=checks, sensors=[sensor]
    )


def partition_keys() -> None:
    """Partition keys, in both directions."""
    assert_type(catalog_of(catalog_partition_key("a/b")), str)
    assert_type(listing_of(listing_partition_key(LISTING)), str)


def notebook() -> pl.DataFrame:
    """A search as a LazyFrame."""
    frame = scan_products(
        search,
        base_url="http://127.0.0.1:8787/v1",
        concurrency=2,
        catalog_source=SOURCES[2],
        progress=True,
    )
    assert_type(frame, pl.LazyFrame)
    schemas: list[pl.Schema] = [PRODUCT_SCHEMA, DETAIL_SCHEMA, CHANGES_SCHEMA, BRANDS_SCHEMA]
    return frame.select(schemas[0].names()).head(10).collect()


def clients() -> list[OctogenClient]:
    """Clients that send requests with one of httpx or of httpx2."""
    return [
        OctogenClient(timeout=httpx.Timeout(5), http_client=httpx.AsyncClient()),
        OctogenClient(timeout=httpx2.Timeout(5), http_client=httpx2.AsyncClient()),
    ]


async def client() -> MerchantProductView:
    """The asynchronous client and the models of its responses."""
    async with OctogenClient(api_key="octo_test", timeout=5) as octogen:
        catalogs: list[MerchantCatalogSummary] = await octogen.list_catalogs()
        page: MerchantProductListPage = await octogen.search_products(
            catalog=catalogs[0].catalog, facets=[{"name": "gender", "values": ["female"]}]
        )
        item: MerchantProductListItem = page.items[0]
        found: MerchantProductUrlLookupResponse = await octogen.lookup_product(item.product_url)
        return found.product


def url_lists(octogen: OctogenResource, urls: list[str]) -> list[CoverageRejectedUrl]:
    """A coverage URL list that is made if it is not there, and what the service rejects of it."""
    try:
        url_list: CoverageUrlList = octogen.create_coverage_url_list("q3")
    except errors.OctogenUrlListNameConflictError:
        [url_list] = octogen.list_coverage_url_lists(limit=1).items
    try:
        added = octogen.add_coverage_url_list_urls(url_list.url_list_id, urls)
    except errors.OctogenUrlListCapacityError as error:
        assert_type(error.urls_left, int | None)
        raise
    except errors.OctogenUrlListError as error:
        assert_type(error.code, str)
        raise
    return added.rejected


def subscribe() -> BigQuerySubscriptionResult:
    """A subscription without Dagster."""
    result = subscribe_to_listing(listing_resource=LISTING, destination_project="my-project")
    assert_type(result.sample_query, str)
    return result


PASSING = (
    errors.OctogenConnectionError,
    errors.OctogenTimeoutError,
    errors.OctogenRateLimitError,
    errors.OctogenServerError,
    errors.OctogenShopError,
    errors.OctogenUrlListUnavailableError,
    errors.OctogenBigQueryAccessPendingError,
    errors.OctogenBigQueryUnavailableError,
    errors.OctogenBigQueryUnreachableError,
    errors.OctogenMCPRateLimitError,
)
LASTING = (
    errors.OctogenAuthenticationError,
    errors.OctogenBudgetError,
    errors.OctogenInsufficientCreditError,
    errors.OctogenForbiddenError,
    errors.OctogenNotFoundError,
    errors.OctogenValidationError,
    errors.OctogenResponseError,
    errors.OctogenPagingError,
    errors.OctogenEmptyCatalogError,
    errors.OctogenSnapshotError,
    errors.OctogenComponentError,
    errors.OctogenShrunkenSnapshotError,
    errors.OctogenSplitCatalogError,
    errors.OctogenBigQueryInputError,
    errors.OctogenMCPAuthenticationError,
    errors.OctogenNotificationError,
    errors.OctogenTableError,
    errors.OctogenUrlListNotFoundError,
)


class TaggedCatalogs(OctogenComponent):
    """A component whose assets have the keywords of their search as a tag."""

    def get_asset_spec(self, data: OctogenAssetData) -> dg.AssetSpec:
        spec = super().get_asset_spec(data)
        assert_type(data.search, ProductSearch | None)
        q = data.search.q if data.search else None
        return spec.merge_attributes(tags={"kind": data.kind} | ({"q": q} if q else {}))


class TaggedListings(OctogenLinkedDatasetsComponent):
    """A component whose assets have their kind as a tag."""

    def get_asset_spec(self, data: OctogenAssetData) -> dg.AssetSpec:
        return data.spec.merge_attributes(tags={"kind": data.kind})


def handle(error: OctogenError) -> dg.Failure | dg.RetryRequested:
    """The reaction of an op to each kind of error."""
    if isinstance(error, PASSING) or error.persistence is errors.Persistence.PASSING:
        return dg.RetryRequested(max_retries=3, seconds_to_wait=60)
    description = str(error)
    if isinstance(error, errors.MissingPackageError):
        description = "install the extra"
    elif isinstance(error, MissingAPIKeyError):
        description = "set OCTOGEN_PLATFORM_API_KEY"
    elif isinstance(error, errors.OctogenInsufficientCreditError):
        assert_type(error.top_up_url, str | None)
    elif isinstance(error, OctogenAPIError):
        assert_type(error.status_code, int)
        assert_type(error.retry_after, float | None)
        description = f"{error.status_code}, request {error.request_id}: {error.detail}"
    elif isinstance(error, errors.OctogenPastPartitionError):
        description = f"{error.begin} to {error.end}"
    elif isinstance(error, errors.OctogenBigQueryError):
        description = f"no linked dataset: {error}"
    elif isinstance(error, errors.OctogenMCPError):
        assert_type(error.retry_after, float | None)
    return dg.Failure(description, allow_retries=not isinstance(error, LASTING))
