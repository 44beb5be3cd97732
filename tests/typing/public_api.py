"""Public names as a user uses them, for what no block of `docs/` and no example has.

mypy checks this file and the examples, and in `.ci/static` the blocks. `test_public_api.py` checks
that no name is missing.
"""

from __future__ import annotations

from typing import assert_type

import dagster as dg
import httpx
import httpx2
import polars as pl

from octogen_dagster import (
    BigQuerySubscriptionResult,
    CatalogSource,
    ExchangeSource,
    GrantedCatalogs,
    MissingAPIKeyError,
    NamedCatalogs,
    OctogenAPIError,
    OctogenClient,
    OctogenError,
    OctogenResource,
    ProductScan,
    ProductSearch,
    StaticSource,
    build_alert_sensor,
    build_linked_datasets_asset,
    build_linked_datasets_checks,
    build_linked_snapshot_asset,
    build_listing_sensor,
    build_price_alerts_asset,
    build_products_asset,
    build_table_asset,
    build_url_list_asset,
    build_url_list_checks,
    build_url_list_export_asset,
    build_url_list_sensor,
    build_url_matches_asset,
    errors,
    scan_products,
    snapshot_days,
    subscribe_to_listing,
)
from octogen_dagster.alerts import Appeared, BackInStock, EmailNotifier, PriceRose, SlackNotifier
from octogen_dagster.api.models import MerchantProductUrlLookupResponse, MerchantProductView
from octogen_dagster.api.url_lists import CoverageRejectedUrl, CoverageUrlList
from octogen_dagster.bigquery.partitions import listing_of, listing_partition_key
from octogen_dagster.components import OctogenAssetData, OctogenLinkedDatasetsComponent
from octogen_dagster.doctor.checks import diagnose
from octogen_dagster.doctor.findings import Diagnosis, Finding
from octogen_dagster.snapshots.partitions import catalog_of, catalog_partition_key
from octogen_dagster.tables import (
    BigQueryTables,
    DeltaTables,
    IcebergTables,
    PostgresTables,
    SnowflakeTables,
)
from octogen_dagster.tables.destination import TableConnection, TableDestination

EXCHANGE = "projects/octogen/locations/us/dataExchanges/catalogs"
LISTING = f"{EXCHANGE}/listings/northpeak"
SOURCES: list[CatalogSource] = [NamedCatalogs(keys=["northpeak"]), GrantedCatalogs()]
DESTINATIONS: list[TableDestination] = [
    IcebergTables(warehouse="lake"),
    DeltaTables(base_dir="lake", storage_options={"aws_region": "eu-west-1"}),
    PostgresTables(uri=dg.EnvVar("WAREHOUSE")),
    SnowflakeTables(account="a-b", user="loader", database="SHOP", password=dg.EnvVar("TOKEN")),
    BigQueryTables(project="my-project", dataset="octogen", location="EU"),
]


@dg.asset
def boots(octogen: OctogenResource) -> ProductScan:
    """An asset that reads a search of its own."""
    return octogen.scan(ProductSearch(q="boots"))


def definitions(history: dg.AssetsDefinition) -> dg.Definitions:
    """Tables, alerts and listings."""
    dresses = build_products_asset(
        "dresses", ProductSearch(q="dress"), snapshot_days("2026-11-01", "Europe/Berlin")
    )
    rules = [PriceRose(percent=20, against="median", days=14), BackInStock(), Appeared()]
    alerts = build_price_alerts_asset(history, rules)
    slack = SlackNotifier(webhook_url=dg.EnvVar("SLACK_WEBHOOK_URL"))
    mail = EmailNotifier(
        email_from="prices@shop.example",
        email_to=["team@shop.example"],
        smtp_host="mail.shop.example",
        smtp_user="prices",
        email_password=dg.EnvVar("SMTP_PASSWORD"),
    )
    datasets = build_linked_datasets_asset(control_plane=True)
    tables = [build_table_asset(dresses, each, name=each.kind) for each in DESTINATIONS]
    return dg.Definitions(
        assets=[dresses, history, alerts, datasets, *tables],
        asset_checks=build_linked_datasets_checks(datasets, StaticSource([LISTING])),
        sensors=[
            build_alert_sensor(alerts, slack, name="of_slack"),
            build_alert_sensor(alerts, mail, name="of_mail"),
            build_listing_sensor(datasets, ExchangeSource(EXCHANGE, only_catalogs=False)),
        ],
    )


def url_list_definitions(articles: dg.AssetsDefinition) -> dg.Definitions:
    """Competitors' addresses as a list at Octogen."""
    url_list = build_url_list_asset("competitors", articles, list_name="q3")
    checks = build_url_list_checks(url_list, severity=dg.AssetCheckSeverity.ERROR)
    export = build_url_list_export_asset(url_list, max_age=None)
    coverage = build_linked_snapshot_asset(export, view="url_coverage_v1")
    offers = build_linked_snapshot_asset(export)
    matched = build_url_matches_asset(url_list, coverage, offers, min_covered_percent=90)
    chain: list[dg.AssetsDefinition] = [export, coverage, offers, matched]
    sensor = build_url_list_sensor(chain, minimum_interval_seconds=3600)
    return dg.Definitions(
        assets=[articles, url_list, *chain], asset_checks=checks, sensors=[sensor]
    )


def tried(destination: TableDestination) -> None:
    """A destination that is connected to, as an asset does it."""
    connection: TableConnection
    with destination.resolved().connect() as connection:
        connection.try_out(destination.default_schema)


def diagnosed(octogen: OctogenResource) -> dg.AssetCheckResult:
    """What a check says about the resources."""
    diagnosis = diagnose(octogen=octogen, timeout=20)
    assert_type(diagnosis, Diagnosis)
    failed: list[Finding] = [each for each in diagnosis.findings if each.status == "failed"]
    return dg.AssetCheckResult(passed=diagnosis.ok, description="\n".join(map(str, failed)))


def partition_keys() -> None:
    """Partition keys, in both directions."""
    assert_type(catalog_of(catalog_partition_key("a/b")), str)
    assert_type(listing_of(listing_partition_key(LISTING)), str)


def notebook() -> pl.LazyFrame:
    """A search as a LazyFrame."""
    frame = scan_products(ProductSearch(q="boots"), catalog_source=SOURCES[0], progress=True)
    assert_type(frame, pl.LazyFrame)
    return frame


async def looked_up(url: str) -> MerchantProductView:
    """A product by an asynchronous client of one of httpx or of httpx2."""
    OctogenClient(timeout=httpx2.Timeout(5), http_client=httpx2.AsyncClient())
    async with OctogenClient(timeout=httpx.Timeout(5), http_client=httpx.AsyncClient()) as client:
        found: MerchantProductUrlLookupResponse = await client.lookup_product(url)
        return found.product


def url_lists(octogen: OctogenResource, urls: list[str]) -> list[CoverageRejectedUrl]:
    """A coverage URL list that is made if it is not there, and what the service rejects of it."""
    try:
        url_list: CoverageUrlList = octogen.create_coverage_url_list("q3")
    except errors.OctogenUrlListNameConflictError:
        [url_list] = octogen.list_coverage_url_lists(limit=1).items
    try:
        return octogen.add_coverage_url_list_urls(url_list.url_list_id, urls).rejected
    except errors.OctogenUrlListCapacityError as error:
        assert_type(error.urls_left, int | None)
        raise
    except errors.OctogenUrlListError as error:
        assert_type(error.code, str)
        raise


def subscribe() -> BigQuerySubscriptionResult:
    """A subscription without Dagster."""
    result = subscribe_to_listing(listing_resource=LISTING, destination_project="my-project")
    assert_type(result.sample_query, str)
    return result


class TaggedListings(OctogenLinkedDatasetsComponent):
    """A component whose assets have their kind as a tag."""

    def get_asset_spec(self, data: OctogenAssetData) -> dg.AssetSpec:
        assert_type(data.search, ProductSearch | None)
        return data.spec.merge_attributes(tags={"kind": data.kind})


def handle(error: OctogenError) -> dg.Failure | dg.RetryRequested:
    """The reaction of an op to each kind of error."""
    if error.persistence is errors.Persistence.PASSING:
        return dg.RetryRequested(max_retries=3, seconds_to_wait=60)
    description = str(error)
    if isinstance(error, MissingAPIKeyError):
        description = "set OCTOGEN_PLATFORM_API_KEY"
    elif isinstance(error, errors.OctogenInsufficientCreditError):
        assert_type(error.top_up_url, str | None)
    elif isinstance(error, OctogenAPIError):
        assert_type(error.status_code, int)
        assert_type(error.retry_after, float | None)
        description = f"{error.status_code}, request {error.request_id}: {error.detail}"
    elif isinstance(error, errors.OctogenPastPartitionError):
        description = f"{error.begin} to {error.end}"
    elif isinstance(error, errors.OctogenMCPError):
        assert_type(error.retry_after, float | None)
    return dg.Failure(description)
