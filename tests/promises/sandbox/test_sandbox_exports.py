"""What the sandbox shares over BigQuery each day, read by Google's client and by our assets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import polars as pl
import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

import octogen_dagster as od
from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.sandbox.server import Sandbox
from tests.promises.sandbox.sandbox_calls import all_items, connect, search

LISTS = "/coverage/url-lists"
PROJECT = "my-project"
LINKED = f"{PROJECT}.octogen_q3"


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with Sandbox(catalogs={"northpeak": 60}, hub=True, url_list_seconds=0) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with connect(sandbox) as connected:
        yield connected


@pytest.fixture
def google(sandbox: Sandbox) -> Iterator[bigquery.Client]:
    credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
    with bigquery.Client(PROJECT, credentials) as connected:
        yield connected


class UrlList:
    """A list of the sandbox, and a subscription to its listing."""

    def __init__(self, sandbox: Sandbox, client: httpx.Client) -> None:
        self._client = client
        self.id = client.post(LISTS, json={"name": "q3"}).json()["urlListId"]
        listing = sandbox.hub.listing_resource(self.resource["bigQuery"]["listingId"])
        sandbox.hub.subscribe(listing, *LINKED.split("."))

    @property
    def resource(self) -> dict[str, Any]:
        found: dict[str, Any] = self._client.get(f"{LISTS}/{self.id}").json()
        return found

    def add(self, *urls: str) -> None:
        for first in range(0, len(urls), 1000):
            body = {"urls": urls[first : first + 1000]}
            self._client.post(f"{LISTS}/{self.id}/urls", json=body).raise_for_status()


@pytest.fixture
def url_list(sandbox: Sandbox, client: httpx.Client) -> UrlList:
    return UrlList(sandbox, client)


def rows(google: bigquery.Client, sql: str) -> list[dict[str, Any]]:
    return [dict(row) for row in google.query(sql).result()]


def test_a_day_exports_what_was_in_the_list(
    sandbox: Sandbox, client: httpx.Client, url_list: UrlList, google: bigquery.Client
) -> None:
    coverage = f"SELECT * FROM `{LINKED}.url_coverage_v1`"
    products = f"SELECT * FROM `{LINKED}.products_current_v1`"
    with pytest.raises(GoogleAPICallError, match="Not found: Table"):
        rows(google, coverage)
    first, second, third = (each["productUrl"] for each in search(client, limit=3).json()["items"])
    submitted = {
        first.upper(): False,  # the path has its case
        first.replace("https", "http"): True,
        f"{second}?variant=7": True,
        f"{second}?variant=8": True,
        third.replace("/products/", "/collections/summer/products/"): True,
        f"{third}-none": False,
    }
    url_list.add(*submitted)
    assert url_list.resource["bigQuery"]["lastExportedAt"] is None
    sandbox.next_day()
    url_list.add("https://shop.example/tomorrow")
    exported = rows(google, coverage)
    assert {each["url"]: each["covered"] for each in exported} == submitted
    assert exported[1]["normalized_url"] == first
    assert {each["product_url"] for each in rows(google, products)} == {first, second, third}
    told = url_list.resource["bigQuery"]
    assert told["lastRowCount"] == 3
    [moment] = {each["exported_at"] for each in exported}
    assert told["lastExportedAt"] == moment.isoformat().replace("+00:00", "Z")
    sandbox.next_day()
    [again] = rows(
        google, f"SELECT COUNT(*) AS n, MAX(exported_at) AS m FROM `{LINKED}.url_coverage_v1`"
    )
    assert again["n"] == len(submitted) + 1
    assert again["m"] > moment


def test_products_of_a_view_are_those_of_a_search(
    sandbox: Sandbox, client: httpx.Client, google: bigquery.Client
) -> None:
    sandbox.next_day()
    sandbox.hub.subscribe(sandbox.hub.share("northpeak"), PROJECT, "octogen_northpeak")
    found = rows(google, f"SELECT * FROM `{PROJECT}.octogen_northpeak.products_current_v1`")
    searched = {each["uuid"]: each for each in all_items(client)}
    assert {each["uuid"] for each in found} == searched.keys()
    for row in found:
        item = searched[row["uuid"]]
        for column, field in (
            ("product_url", "productUrl"),
            ("title", "title"),
            ("current_price", "currentPrice"),
            ("currency", "currency"),
            ("in_stock", "inStock"),
        ):
            assert row[column] == item.get(field), (column, item)
        if path := item.get("categoryPath"):  # one in forty lacks it
            assert row["enrichment"]["category_path"] == path
    sizes = [variant["size"] for row in found for variant in row["variants"]]
    assert {"Regular", "Long"} < set(sizes)


@pytest.mark.slow
def test_the_assets_read_the_views_without_google(
    sandbox: Sandbox, client: httpx.Client, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    linked = od.build_linked_datasets_asset()
    snapshot = od.build_linked_snapshot_asset(linked)
    key = listing_partition_key(sandbox.hub.share("northpeak"))
    instance.add_dynamic_partitions("octogen_listings", [key])
    result = dg.materialize(
        [linked, snapshot, od.build_linked_products_asset(linked)],
        instance=instance,
        partition_key=key,
        resources={
            "analytics_hub": od.AnalyticsHubResource(project=PROJECT),
            "bigquery": od.AnalyticsHubResource(project=PROJECT),
            "io_manager": od.ParquetSnapshotIOManager(base_dir=str(tmp_path)),
        },
    )
    assert {check.passed for check in result.get_asset_check_evaluations()} == {True}
    [file] = tmp_path.rglob("*.parquet")
    assert set(pl.read_parquet(file)["uuid"]) == {each["uuid"] for each in all_items(client)}


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("DROP TABLE `{view}`", "not authorized"),
        ("SELECT nope FROM `{view}`", "no such column: nope"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("ATTACH DATABASE 'some.db' AS other", "not authorized"),
        (f"SELECT 1 FROM `{LINKED}.nothing`", f"Not found: Table {PROJECT}:octogen_q3.nothing"),
        ("SELECT 1 FROM `other.octogen_q3.url`", "Not found: Dataset other:octogen_q3"),
    ],
)
def test_what_is_no_select_of_a_view_is_refused(
    sandbox: Sandbox, url_list: UrlList, google: bigquery.Client, sql: str, problem: str
) -> None:
    sandbox.next_day()
    with pytest.raises(GoogleAPICallError) as refused:
        rows(google, sql.format(view=f"{LINKED}.url_coverage_v1"))
    assert problem in str(refused.value)


@pytest.mark.slow
def test_a_result_has_the_types_of_what_was_selected(
    sandbox: Sandbox, url_list: UrlList, google: bigquery.Client
) -> None:
    url_list.add(*(f"https://shop.example/{number}" for number in range(12_000)))
    sandbox.next_day()
    view = f"`{LINKED}.url_coverage_v1`"
    figures = google.query(
        f"SELECT COUNTIF(NOT covered) AS covered, MAX(exported_at), AVG(1.5), MIN(url) FROM {view}"
    ).result()
    types = [field.field_type for field in figures.schema]
    assert types == ["INTEGER", "TIMESTAMP", "FLOAT", "STRING"]
    columns = google.query(f"SELECT v.url AS covered, covered AS url FROM {view} AS v").result()
    assert [field.field_type for field in columns.schema] == ["STRING", "BOOLEAN"]
    inner = google.query(f"SELECT c FROM (SELECT covered AS c FROM {view})").result()
    assert [field.field_type for field in inner.schema] == ["BOOLEAN"]
    assert len(rows(google, f"SELECT `url`\nFROM {view}\nWHERE (\nNOT covered\n)")) == 12_000
    limit = bigquery.QueryJobConfig(maximum_bytes_billed=11 * 2**20)
    with pytest.raises(GoogleAPICallError, match=r"exceeded limit for bytes billed: 11534336\. 12"):
        google.query(f"SELECT * FROM {view}", job_config=limit).result(retry=None)


def test_a_list_is_a_listing_and_no_catalog(sandbox: Sandbox, url_list: UrlList) -> None:
    catalog = sandbox.hub.share("northpeak")
    names = [listing.name for listing in sandbox.hub.listings]
    assert len(names) == 2
    with od.OctogenControlPlaneResource(principal="user:me@my.org").control_plane() as octogen:
        assert [each.listing_resource for each in octogen.listings()] == [catalog]
        assert url_list.resource["bigQuery"]["readerCount"] == 0
        _, cells = octogen.register(PROJECT, "user:me@my.org")
        assert [each.catalog_key for each in cells] == ["northpeak"]
    assert url_list.resource["bigQuery"]["readerCount"] == 1


def test_who_deletes_a_list_takes_it_from_its_readers(
    sandbox: Sandbox, client: httpx.Client, url_list: UrlList, google: bigquery.Client
) -> None:
    sandbox.next_day()
    sql = f"SELECT url FROM `{LINKED}.url_coverage_v1`"
    assert rows(google, sql) == []
    client.delete(f"{LISTS}/{url_list.id}")
    with pytest.raises(GoogleAPICallError, match="its subscription has ended"):
        rows(google, sql)
    sandbox.next_day()
    assert sandbox.hub.listings == []
