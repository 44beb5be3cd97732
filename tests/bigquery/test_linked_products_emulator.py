"""Linked products queried for real, in the BigQuery emulator; a view stands for what is shared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster_gcp import BigQueryResource
from google.cloud import bigquery

from octogen_dagster.bigquery.linked_datasets import build_linked_datasets_asset
from octogen_dagster.bigquery.linked_products import build_linked_products_asset
from octogen_dagster.bigquery.linked_products_query import query_linked_products
from octogen_dagster.bigquery.partitions import listing_partition_key, listing_partitions
from octogen_dagster.bigquery.query_jobs import JobOrigin, QueryLimits, run_query
from octogen_dagster.bigquery.resources import AnalyticsHubResource
from octogen_dagster.bigquery.tables import TableName, read_first_rows, read_table
from octogen_dagster.sandbox.server import Sandbox
from tests.bigquery.rest_api import ENVIRONMENT, PROJECT, answering, environment, running_emulator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not ENVIRONMENT, reason="needs the BigQuery emulator: see tests/bigquery/emulator.sh"
    ),
]

RUN: dict[str, Any] = {"origin": JobOrigin("run-1", "run-1", "products"), "limits": QueryLimits()}
THEIRS = "octogen-prod.catalog_acme"
LINKED = f"{PROJECT}.acme_products"  # an id that somebody chose
ACME = "octogen-prod:us:catalogs:acme"
PRODUCTS = """
    SELECT
        FORMAT('u%02d', i) AS uuid,
        'acme' AS catalog_key,
        'https://acme.example/' || i AS product_url,
        'Boot | ' || i AS title,
        STRUCT(IF(i <= 20, 'Acme', 'Zeta') AS name, 'slug' AS slug) AS brand,
        CAST(i AS FLOAT64) AS current_price,
        TRUE AS in_stock,
        [STRUCT('sku' AS sku)] AS variants,
        TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 3 HOUR) AS exported_at
    FROM UNNEST(GENERATE_ARRAY(1, 25)) AS i
"""
BRANDS = """
    SELECT brand.name AS brand, COUNT(*) AS products, MAX(current_price) AS dearest
    FROM {products} WHERE REGEXP_CONTAINS(uuid, r'^u\\d{2}$') GROUP BY brand.name ORDER BY brand
"""


@pytest.fixture(scope="module")
def resource(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQueryResource]:
    """BigQuery with a catalog that is shared and linked, and a dataset of one's own."""
    folder = tmp_path_factory.mktemp("bigquery")
    with (
        running_emulator(folder) as emulator,
        answering(lambda *_: (404, {})) as token_server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in environment(emulator, token_server, folder).items():
            patch.setenv(name, value)
        resource = BigQueryResource(project=PROJECT)
        with resource.get_client() as client, closing(client):
            for name in (THEIRS, f"{PROJECT}.analytics"):
                client.create_dataset(name)
            linked = bigquery.Dataset(LINKED).to_api_repr() | {"type": "LINKED"}
            client.create_dataset(bigquery.Dataset.from_api_repr(linked))
        yield resource


@pytest.fixture
def client(resource: BigQueryResource) -> Iterator[bigquery.Client]:
    with resource.get_client() as client, closing(client):
        shared(client)
        yield client


def shared(client: bigquery.Client, products: str = PRODUCTS) -> None:
    """Let Octogen export these products."""
    table = f"`{THEIRS}.export`"
    view = f"`{LINKED}.products_current_v1`"
    client.query(f"CREATE OR REPLACE TABLE {table} AS {products}").result()
    client.query(f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM {table}").result()


@dg.asset(partitions_def=listing_partitions)
def linked_datasets() -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
    return dg.MaterializeResult(metadata={"dagster/table_name": f"{LINKED}.products_current_v1"})


class Runs:
    """Runs of assets for the listing, which is subscribed to."""

    def __init__(self, resource: BigQueryResource, instance: dg.DagsterInstance) -> None:
        self._resource = resource
        self._instance = instance
        instance.add_dynamic_partitions("octogen_listings", [ACME])
        self.of(linked_datasets)

    def of(
        self, asset: dg.AssetsDefinition, *upstream: dg.AssetsDefinition
    ) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [linked_datasets, *upstream, asset],
            selection=[*upstream, asset],
            resources={"bigquery": self._resource},
            instance=self._instance,
            partition_key=ACME,
        )


@pytest.fixture
def runs(resource: BigQueryResource, instance: dg.DagsterInstance) -> Runs:
    return Runs(resource, instance)


def shown(result: dg.ExecuteInProcessResult, node: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(node)
    return {name: value.value for name, value in event.metadata.items()}


def checked(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def rows(client: bigquery.Client, table: str) -> list[dict[str, Any]]:
    return [dict(row) for row in client.list_rows(f"{PROJECT}.{table}")]


def test_a_linked_table_is_described_where_it_is(client: bigquery.Client, runs: Runs) -> None:
    asset = build_linked_products_asset(linked_datasets)
    result = runs.of(asset)

    metadata = shown(result, "octogen_linked_products")
    assert metadata["dagster/table_name"] == f"{LINKED}.products_current_v1"
    assert metadata["dagster/partition_row_count"] == 25
    assert (metadata["octogen/table_type"], metadata["octogen/location"]) == ("VIEW", "US")
    assert metadata["octogen/age_hours"] == 3.0
    types = {column.name: column.type for column in metadata["dagster/column_schema"].columns}
    assert types["brand"] == "STRUCT<name STRING, slug STRING>"
    assert types["variants"] == "ARRAY<STRUCT<sku STRING>>"
    assert (types["current_price"], types["in_stock"]) == ("FLOAT64", "BOOL")
    assert {name: check.passed for name, check in checked(result).items()} == {
        "not_empty": True,
        "expected_columns": True,
        "fresh": True,
    }


def test_products_that_are_old_are_a_warning(client: bigquery.Client, runs: Runs) -> None:
    result = runs.of(build_linked_products_asset(linked_datasets, max_age=timedelta(hours=2)))
    assert result.success
    check = checked(result)["fresh"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == (
        f"{LINKED}.products_current_v1 changed 3 hours ago; 2 are allowed."
    )


def test_a_table_that_is_empty_or_lacks_columns_fails_its_checks(
    client: bigquery.Client, runs: Runs
) -> None:
    shared(client, f"SELECT * EXCEPT (in_stock, title, exported_at) FROM ({PRODUCTS}) LIMIT 0")
    result = runs.of(build_linked_products_asset(linked_datasets))
    assert shown(result, "octogen_linked_products")["dagster/partition_row_count"] == 0
    checks = checked(result)
    table = f"{LINKED}.products_current_v1"
    assert {name: (check.passed, check.description) for name, check in checks.items()} == {
        "not_empty": (False, f"{table} has 0 rows."),
        "expected_columns": (False, f"{table} lacks title, in_stock."),
        "fresh": (
            False,
            f"{table} does not say when its rows changed. Name the column that does with "
            "modified_column, or leave this check out with max_age=None.",
        ),
    }
    assert checks["not_empty"].severity is dg.AssetCheckSeverity.ERROR


def test_another_column_can_tell_the_last_modification(client: bigquery.Client, runs: Runs) -> None:
    shared(client, f"SELECT *, DATE '2026-01-02' AS Changed_On FROM ({PRODUCTS})")
    result = runs.of(build_linked_products_asset(linked_datasets, modified_column="changed_on"))
    metadata = shown(result, "octogen_linked_products")
    assert metadata["octogen/last_modified"] == 1767312000.0

    asset = build_linked_products_asset(linked_datasets, modified_column="title")
    with pytest.raises(dg.Failure) as caught:
        runs.of(asset)
    assert str(caught.value) == (
        f"Table {LINKED}.products_current_v1: it has no column 'title' with dates, to tell its "
        "last modification by. Those with dates: exported_at, Changed_On. Correct modified_column."
    )


def test_a_table_needs_no_query(client: bigquery.Client) -> None:
    table = client.get_table(f"{THEIRS}.export")
    before = [job.job_id for job in client.list_jobs()]
    facts = read_table(client, TableName.parse(f"{THEIRS}.export"), **RUN)
    assert (facts.kind, facts.rows, facts.last_modified) == ("TABLE", 25, table.modified)
    assert [job.job_id for job in client.list_jobs()] == before


def test_a_linked_dataset_that_is_gone_is_an_error(client: bigquery.Client, runs: Runs) -> None:
    client.delete_table(f"{LINKED}.products_current_v1")
    with pytest.raises(dg.Failure) as caught:
        runs.of(build_linked_products_asset(linked_datasets))
    assert str(caught.value) == (
        f"Table {LINKED}.products_current_v1: BigQuery refused (404 notFound: Not found: Table "
        f"{PROJECT}:acme_products.products_current_v1). Check the name and the location: a query "
        "reaches the datasets of one location only. A linked dataset is gone when its listing was "
        "withdrawn or its subscription ended: then subscribe again."
    )


def test_a_query_becomes_a_table(client: bigquery.Client, runs: Runs) -> None:
    products = build_linked_products_asset(linked_datasets)
    brands = query_linked_products(
        BRANDS,
        name="brands",
        linked_products=products,
        destination="analytics.brands_{linked_dataset}",
    )
    result = runs.of(brands, products)

    assert rows(client, "analytics.brands_acme_products") == [
        {"brand": "Acme", "products": 20, "dearest": 20.0},
        {"brand": "Zeta", "products": 5, "dearest": 25.0},
    ]
    metadata = shown(result, "brands")
    assert metadata["dagster/table_name"] == f"{PROJECT}.analytics.brands_acme_products"
    assert metadata["dagster/partition_row_count"] == 2
    assert metadata["octogen/source_table"] == f"{LINKED}.products_current_v1"
    assert f"FROM `{LINKED}.products_current_v1` WHERE" in metadata["octogen/sql"]
    assert metadata["octogen/preview"].splitlines() == [
        "| brand | products | dearest |",
        "| --- | --- | --- |",
        "| Acme | 20 | 20.0 |",
        "| Zeta | 5 | 25.0 |",
    ]
    columns = [(each.name, each.type) for each in metadata["dagster/column_schema"].columns]
    assert columns == [("brand", "STRING"), ("products", "INT64"), ("dearest", "FLOAT64")]
    assert (metadata["octogen/estimated_bytes"], metadata["octogen/billed_bytes"]) == (0, 0)
    assert metadata["octogen/query_dollars"] == 0
    assert metadata["octogen/seconds"] >= 0
    job = client.get_job(metadata["octogen/job_id"], location=metadata["octogen/location"])
    assert job.labels == {
        "dagster_asset": "brands",
        "dagster_run": result.run_id,
        "dagster_partition": "octogen-prod_us_catalogs_acme",
    }


def test_a_second_run_replaces_the_table_and_a_failed_one_leaves_it(
    client: bigquery.Client, runs: Runs
) -> None:
    def cheapest(sql: str) -> dg.AssetsDefinition:
        return query_linked_products(
            sql,
            name="cheapest",
            linked_products=linked_datasets,
            destination=f"{PROJECT}.analytics.cheapest_{{linked_dataset}}",
        )

    right = cheapest("SELECT title FROM `{products}` ORDER BY current_price LIMIT 2")
    runs.of(right)
    shared(client, f"SELECT * FROM ({PRODUCTS}) WHERE current_price > 7")
    runs.of(right)
    left = [{"title": "Boot | 8"}, {"title": "Boot | 9"}]
    assert rows(client, "analytics.cheapest_acme_products") == left

    with pytest.raises(dg.Failure) as caught:
        runs.of(cheapest("SELEC title FROM {products}"))
    assert str(caught.value) == (
        f"The query into {PROJECT}.analytics.cheapest_acme_products, in location US: BigQuery "
        'refused (400 invalidQuery: Syntax error: Unexpected identifier "SELEC" at [1:1]). '
        "Correct the SQL."
    )
    with pytest.raises(dg.Failure, match=r"400 invalidQuery: division by zero"):
        runs.of(cheapest("SELECT 1 / (current_price - current_price) AS x FROM {products}"))
    with pytest.raises(dg.Failure) as caught:
        runs.of(cheapest("CREATE TABLE analytics.x AS SELECT * FROM {products}"))
    assert str(caught.value) == (
        f"The query into {PROJECT}.analytics.cheapest_acme_products, in location US: it is "
        "CREATE_TABLE_AS_SELECT, and only one SELECT is run. Leave out CREATE, INSERT, DECLARE and "
        "further statements."
    )
    assert rows(client, "analytics.cheapest_acme_products") == left


@pytest.mark.parametrize("destination", [None, f"{PROJECT}.analytics.retried"])
def test_a_retried_run_finds_its_job(client: bigquery.Client, destination: str | None) -> None:
    sql = f"SELECT title FROM `{LINKED}.products_current_v1`"
    arguments: dict[str, Any] = {"subject": "Q", "location": "US", "destination": destination}
    first, again = (run_query(client, sql, **arguments, **RUN).job for _ in range(2))
    assert first.job_id == again.job_id
    assert str(first.job_id).endswith("_0")
    assert again.maximum_bytes_billed == 100 * 10**9
    assert len(list(again.result())) == 25


def test_a_linked_dataset_is_not_written_to(client: bigquery.Client, runs: Runs) -> None:
    asset = query_linked_products(
        BRANDS,
        name="brands",
        linked_products=linked_datasets,
        destination="{linked_dataset}.brands",
    )
    with pytest.raises(dg.Failure) as caught:
        runs.of(asset)
    assert str(caught.value) == (
        f"Table {LINKED}.brands: {LINKED} is a linked dataset, which is read-only. Write to a "
        "dataset of your own in the same location."
    )


def test_a_dataset_that_is_not_there_is_not_made(client: bigquery.Client, runs: Runs) -> None:
    asset = query_linked_products(
        BRANDS,
        name="brands",
        linked_products=linked_datasets,
        destination="analitics.{linked_dataset}",
    )
    with pytest.raises(
        dg.Failure,
        match=rf"^Dataset {PROJECT}\.analitics: BigQuery refused \(404 notFound: .* Check the name",
    ):
        runs.of(asset)


def test_a_preview_is_bounded_and_has_what_polars_can_hold(client: bigquery.Client) -> None:
    nested = ", ".join(f"{i} AS n{i}" for i in range(9))
    table = TableName.parse("analytics.types", PROJECT)
    client.query(
        f"""CREATE OR REPLACE TABLE {table.quoted} AS SELECT
        MAKE_INTERVAL(1) AS i, STRUCT(MAKE_INTERVAL(1) AS i) AS s, title, brand, variants, {nested}
        FROM ({PRODUCTS})"""
    ).result()
    schema = read_table(client, table, **RUN).schema
    frame = read_first_rows(client, table, schema, 10)
    assert frame.columns == ["title", "brand", "variants", "n0", "n1", "n2", "n3", "n4"]
    assert len(frame) == 10
    assert frame.schema["brand"] == pl.Struct({"name": pl.String, "slug": pl.String})
    assert frame.schema["variants"] == pl.List(pl.Struct({"sku": pl.String}))
    assert read_first_rows(client, table, schema[:2], 10).is_empty()


def test_a_single_linked_dataset_needs_no_partitions(
    client: bigquery.Client, resource: BigQueryResource
) -> None:
    @dg.asset
    def linked() -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
        return dg.MaterializeResult(
            metadata={"dagster/table_name": f"{LINKED}.products_current_v1"}
        )

    products = build_linked_products_asset(linked)
    brands = query_linked_products(
        BRANDS, name="brands", linked_products=products, destination="analytics.brands"
    )
    result = dg.materialize([linked, products, brands], resources={"bigquery": resource})
    assert shown(result, "octogen_linked_products")["dagster/row_count"] == 25
    assert shown(result, "brands")["dagster/row_count"] == 2
    job = client.get_job(shown(result, "brands")["octogen/job_id"], location="US")
    assert job.labels == {"dagster_asset": "brands", "dagster_run": result.run_id}


def test_from_a_listing_to_a_table_of_ones_own(
    client: bigquery.Client, resource: BigQueryResource, instance: dg.DagsterInstance
) -> None:
    linked = build_linked_datasets_asset(dataset_id=lambda _: "acme_products")
    products = build_linked_products_asset(linked)
    brands = query_linked_products(
        BRANDS, name="brands", linked_products=products, destination="analytics.{linked_dataset}"
    )
    with Sandbox(catalogs=0, hub=True) as octogen:
        key = listing_partition_key(octogen.hub.share("acme"))
        instance.add_dynamic_partitions("octogen_listings", [key])
        result = dg.materialize(
            [linked, products, brands],
            partition_key=key,
            instance=instance,
            resources={
                "analytics_hub": AnalyticsHubResource(
                    project=PROJECT, endpoint=octogen.hub.endpoint
                ),
                "bigquery": resource,
            },
        )
    assert shown(result, "octogen_linked_products")["dagster/partition_row_count"] == 25
    assert [check.passed for check in checked(result).values()] == [True, True, True]
    assert [row["brand"] for row in rows(client, "analytics.acme_products")] == ["Acme", "Zeta"]
