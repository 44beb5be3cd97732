"""Assets of linked products: how they are defined, what they refuse, and what BigQuery refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_gcp import BigQueryResource
from google.cloud.bigquery import Client, SchemaField

from octogen_dagster.bigquery.linked_products import (
    build_linked_products_asset,
    query_linked_products,
)
from octogen_dagster.bigquery.tables import (
    TableName,
    column_type,
    read_table,
    write_query,
)
from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryInputError
from tests.bigquery.rest_api import PROJECT, Answer, answering, environment, refused

TABLE = TableName(PROJECT, "octogen_acme", "products_current_v1")
DESTINATION = TableName(PROJECT, "analytics", "brands")
DATASET = {"datasetReference": {"projectId": PROJECT, "datasetId": "analytics"}}
LISTINGS = dg.DynamicPartitionsDefinition(name="octogen_listings")


@dg.asset
def linked() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"dagster/table_name": str(TABLE)})


@dg.asset(partitions_def=LISTINGS)
def linked_datasets() -> None: ...


def query(sql: str = "SELECT * FROM {products}", **arguments: Any) -> dg.AssetsDefinition:
    given = {"name": "q", "linked_products": linked, "destination": "analytics.brands"}
    return query_linked_products(sql, **{**given, **arguments})


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("my-project.octogen_acme.products_current_v1", TABLE),
        (" octogen_acme.products_current_v1 ", TABLE),
        ("example.com:shop.d.t-1", TableName("example.com:shop", "d", "t-1")),
    ],
)
def test_a_table_is_named_by_three_parts(name: str, parts: TableName) -> None:
    assert TableName.parse(name, default_project=PROJECT) == parts


@pytest.mark.parametrize(
    "name", ["", "t", "d.t", "p.d.t`", "`p.d.t`", "p.d.t; DROP", "p.d-1.t", "p\\.d.t", "p..t"]
)
def test_what_is_not_the_name_of_a_table_is_refused(name: str) -> None:
    with pytest.raises(OctogenBigQueryInputError) as caught:
        TableName.parse(name)
    assert str(caught.value) == (
        f"{name!r} is not the name of a table: it has the form <project>.<dataset>.<table>, "
        "without backticks."
    )


def test_types_are_written_as_in_sql() -> None:
    nested = SchemaField(
        "variants",
        "RECORD",
        mode="REPEATED",
        fields=[SchemaField("sku", "STRING"), SchemaField("sizes", "INTEGER", mode="REPEATED")],
    )
    assert column_type(nested) == "ARRAY<STRUCT<sku STRING, sizes ARRAY<INT64>>>"


def test_a_template_and_a_destination_are_checked_when_the_code_is_loaded() -> None:
    with pytest.raises(ValueError, match=r"^Asset 'q': sql_template must contain \{products\},"):
        query("SELECT * FROM {product}")
    with pytest.raises(ValueError, match=r"^'brands' is not the name of a table: .* <dataset>"):
        query(destination="brands")
    with pytest.raises(ValueError, match=r"destination must contain") as caught:
        query(linked_products=linked_datasets)
    assert str(caught.value) == (
        "Asset 'q': destination must contain {linked_dataset}, or each partition would overwrite "
        "the table of the others: analytics.brands_{linked_dataset}."
    )
    with pytest.raises(ValueError, match=r"^max_age must be a positive timedelta or None, not"):
        build_linked_products_asset(linked, max_age=timedelta(0))


def test_names_pool_group_and_checks_are_those_of_the_other_assets() -> None:
    products = build_linked_products_asset(
        linked_datasets, key_prefix="shop", owners=["team:data"], max_age=None
    )
    spec = products.get_asset_spec()
    assert products.key == dg.AssetKey(["shop", "octogen_linked_products"])
    assert (products.op.pool, spec.group_name, spec.owners) == (None, "octogen", ["team:data"])
    assert spec.kinds == {"octogen", "bigquery"}
    assert products.partitions_def == LISTINGS
    assert [dep.asset_key for dep in spec.deps] == [linked_datasets.key]
    assert {key.name for key in products.check_keys} == {"not_empty", "expected_columns"}

    brands = query(
        linked_products=products, destination="a.b_{linked_dataset}", key_prefix=["shop", "bq"]
    )
    assert brands.key == dg.AssetKey(["shop", "bq", "q"])
    assert [dep.asset_key for dep in brands.get_asset_spec().deps] == [products.key]


def test_a_listing_that_was_never_subscribed_to_is_an_error(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("octogen_listings", ["p:us:x:acme", "p:us:x:other"])
    asset = build_linked_products_asset(linked_datasets)

    def failure() -> str:
        with pytest.raises(dg.Failure) as caught:
            dg.materialize(
                [linked_datasets, asset],
                selection=[asset],
                instance=instance,
                partition_key="p:us:x:acme",
                resources={"bigquery": BigQueryResource(project=PROJECT)},
            )
        assert caught.value.allow_retries is False
        return str(caught.value.description)

    subscribe_first = (
        "linked_datasets, partition 'p:us:x:acme': no linked dataset is known. Its last "
        "materialization says which one it is, as dagster/table_name, and there is {}. "
        "Materialize linked_datasets, partition 'p:us:x:acme' first."
    )
    table = {"dagster/table_name": str(TABLE)}
    instance.report_runless_asset_event(
        dg.AssetMaterialization(linked_datasets.key, partition="p:us:x:other", metadata=table)
    )
    assert failure() == subscribe_first.format("none")
    instance.report_runless_asset_event(
        dg.AssetMaterialization(linked_datasets.key, partition="p:us:x:acme")
    )
    assert failure() == subscribe_first.format("none that does")


@contextmanager
def bigquery(answer: Answer, folder: Path) -> Iterator[Client]:
    """A client of a BigQuery that answers as it is told to."""
    with answering(answer) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(server, server, folder).items():
            patch.setenv(name, value)
        with BigQueryResource(project=PROJECT).get_client() as client, closing(client):
            yield client


@pytest.mark.parametrize(
    ("code", "reason", "advice"),
    [
        (403, "accessDenied", "Let an administrator grant these Google credentials what is missin"),
        (401, "authError", "Run `gcloud auth application-default login`, or give credentials to"),
        (403, "quotaExceeded", "Wait, or let an administrator raise the project's quota."),
        (404, "notFound", "Check the name and the location: a query reaches the datasets of one"),
        (400, "invalidQuery", "Correct the SQL."),
        (409, "duplicate", "Try again later."),
    ],
)
def test_a_refusal_says_what_to_do(tmp_path: Path, code: int, reason: str, advice: str) -> None:
    def refuse(*_: Any) -> Any:
        return refused(code, reason, "Not you.\n")

    with bigquery(refuse, tmp_path) as client, pytest.raises(OctogenBigQueryError) as caught:
        read_table(client, TABLE)
    assert str(caught.value).startswith(
        f"Table {TABLE}: BigQuery refused ({code} {reason}: Not you). {advice}"
    )


def test_an_answer_of_something_else_than_bigquery_is_an_error(tmp_path: Path) -> None:
    with (
        bigquery(lambda *_: (403, {"blocked": True}), tmp_path) as client,
        pytest.raises(OctogenBigQueryError, match=r"refused \(403 no reason given: GET http"),
    ):
        read_table(client, TABLE)


def test_a_query_in_the_wrong_location_is_an_error(tmp_path: Path) -> None:
    def answer(method: str, _path: str, body: dict[str, Any]) -> Any:
        if method == "GET":
            return 200, {**DATASET, "location": "EU"}
        location = body["jobReference"]["location"]
        return refused(404, "notFound", f"Dataset octogen_acme was not found in {location}")

    with bigquery(answer, tmp_path) as client, pytest.raises(OctogenBigQueryError) as caught:
        write_query(client, "SELECT 1", DESTINATION, {})
    assert str(caught.value).startswith(
        f"The query into {DESTINATION}, in location EU: BigQuery refused (404 notFound: Dataset "
        "octogen_acme was not found in EU). Check the name and the location"
    )


def test_a_run_that_is_terminated_stops_its_query(tmp_path: Path) -> None:
    job = {
        "jobReference": {"projectId": PROJECT, "jobId": "j", "location": "US"},
        "status": {"state": "RUNNING"},
        "statistics": {"query": {"statementType": "SELECT"}},
    }
    cancelled = []

    def answer(method: str, path: str, body: dict[str, Any]) -> Any:
        if "/cancel" in path:
            cancelled.append(path)
            return 200, {"job": job}
        if "/queries/" in path:
            os.kill(os.getpid(), signal.SIGINT)
            return 200, {**job, "jobComplete": False}
        if "/datasets/" in path:
            return 200, {**DATASET, "location": "US"}
        return 200, {**job, "configuration": body.get("configuration", {"query": {}})}

    with bigquery(answer, tmp_path) as client, pytest.raises(KeyboardInterrupt):
        write_query(client, "SELECT 1", DESTINATION, {})
    assert len(cancelled) == 1


def test_without_credentials_a_run_says_how_to_log_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(OctogenBigQueryError) as caught:
        dg.materialize(
            [linked, build_linked_products_asset(linked)],
            resources={"bigquery": BigQueryResource(project=PROJECT)},
        )
    assert str(caught.value).startswith(
        "BigQuery: there are no Google credentials (Your default credentials were not found"
    )
    assert str(caught.value).endswith(
        "Run `gcloud auth application-default login`, or give credentials to the BigQuery resource."
    )


def test_defining_the_assets_imports_nothing_of_google() -> None:
    program = (
        "import sys, octogen_dagster.bigquery.linked_products; "
        "heavy = {'google.cloud', 'google.api_core', 'dagster_gcp', 'pandas', 'pyarrow'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
