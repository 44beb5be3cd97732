"""Linked tables and views in the BigQuery emulator, whose SQL and APIs nobody here wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import grpc
import polars as pl
import pytest
from click.testing import CliRunner
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadGrpcTransport,
)

import octogen_dagster as od
from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.server import Sandbox
from tests.needs import needs
from tests.ports import free_port
from tests.results import metadata, octogen_at
from tests.servers.bigquery import (
    ENVIRONMENT,
    PROJECT,
    WithStorage,
    answering,
    environment,
    running_emulator,
)

pytestmark = [
    pytest.mark.world,
    needs("dagster_gcp"),
    pytest.mark.skipif(
        not ENVIRONMENT,
        reason="needs the BigQuery emulator: see tests/servers/bigquery_emulator.sh",
    ),
]

NODE = "octogen_linked_snapshot"
MILLION = 1_000_000
TABLE = f"{PROJECT}.acme_products.products_current_v1"
EXPORTED_AT = datetime.now(UTC).replace(microsecond=0)
PRODUCTS = f"""
    SELECT
        FORMAT('u%07d', i) AS uuid, 'acme' AS catalog_key, 'Boot | ' || i AS title,
        'https://acme.example/' || i AS product_url, STRUCT('Acme' AS name) AS brand,
        CAST(i AS FLOAT64) AS current_price, TRUE AS in_stock,
        TIMESTAMP_SUB(TIMESTAMP '{EXPORTED_AT}', INTERVAL MOD(i, 100) MINUTE) AS exported_at
    FROM UNNEST(GENERATE_ARRAY(0, {{rows}} - 1)) AS i
"""
TYPES = """
    SELECT
        i AS whole, NUMERIC '1.5' AS numeric, DATE '2026-01-02' AS day,
        DATETIME '2026-01-02 03:04:05' AS wall_clock, TIME '03:04:05' AS time,
        JSON '{"a": 1}' AS json, ST_GEOGPOINT(1, 2) AS place, b'\\x00a' AS bytes, TRUE AS flag,
        IF(i > 1, 'text', NULL) AS text,
        STRUCT('Acme' AS name, [DATE '2026-01-01'] AS days) AS brand,
        [STRUCT('sku' AS sku, NUMERIC '2' AS price)] AS variants, ARRAY<STRING>[] AS none
    FROM UNNEST(GENERATE_ARRAY(1, 2)) AS i
"""
TYPED = {
    "numeric": Decimal("1.5"),
    "day": date(2026, 1, 2),
    "wall_clock": datetime(2026, 1, 2, 3, 4, 5),
    "time": time(3, 4, 5),
    "json": '{"a":1}',
    "place": "POINT(1 2)",
    "bytes": b"\x00a",
    "flag": True,
    "brand": {"name": "Acme", "days": [date(2026, 1, 1)]},
    "variants": [{"sku": "sku", "price": Decimal(2)}],
    "none": [],
}


def bigquery_resource() -> Any:
    from dagster_gcp import BigQueryResource

    return BigQueryResource(project=PROJECT)


Open = Callable[[], BigQueryReadClient]
"""Opens a client of the Storage Read API, which each read closes."""


@dg.asset
def linked() -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
    return dg.MaterializeResult(metadata={"dagster/table_name": TABLE})


class Emulator:
    def __init__(self, address: str, client: bigquery.Client, open_storage: Open) -> None:
        self.client = client
        self._address = address
        self._open_storage = open_storage

    def share(self, products: str) -> None:
        """Let Octogen export these products."""
        table = f"`{PROJECT}.theirs.export`"
        self.client.query(f"CREATE OR REPLACE TABLE {table} AS {products}").result()
        self.client.query(f"CREATE OR REPLACE VIEW `{TABLE}` AS SELECT * FROM {table}").result()

    def run(
        self, folder: Path, asset: dg.AssetsDefinition, api: str = "REST"
    ) -> dg.ExecuteInProcessResult:
        with pytest.MonkeyPatch.context() as patch:
            resource: Any = bigquery_resource()
            if api != "REST":
                patch.delenv("BIGQUERY_EMULATOR_HOST")
                resource = WithStorage(self._address, self._open_storage())
            return dg.materialize(
                [linked, asset],
                resources={
                    "bigquery": resource,
                    "io_manager": od.ParquetSnapshotIOManager(base_dir=str(folder)),
                },
                raise_on_error=False,
            )


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    folder = tmp_path_factory.mktemp("bigquery")
    port = free_port()
    with (
        running_emulator(folder, grpc_port=port) as address,
        answering(lambda *_: (404, {})) as token_server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in environment(address, token_server, folder).items():
            patch.setenv(name, value)
        with bigquery_resource().get_client() as client, closing(client):
            for dataset in ("theirs", "acme_products"):
                client.create_dataset(dataset)
            options = [("grpc.max_receive_message_length", -1)]

            def open_storage() -> BigQueryReadClient:
                channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
                transport = BigQueryReadGrpcTransport(channel=channel)
                return BigQueryReadClient(transport=transport)  # type: ignore[no-untyped-call]  # it has no types

            yield Emulator(address, client, open_storage)


def checked(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {each.check_name: each.passed for each in result.get_asset_check_evaluations()}


def snapshot(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / f"{NODE}.parquet")


def test_a_million_rows_become_a_snapshot(emulator: Emulator, tmp_path: Path) -> None:
    emulator.share(PRODUCTS.format(rows=MILLION))
    columns = ["uuid", "current_price", "exported_at"]
    asset = od.build_linked_snapshot_asset(linked, columns=columns)
    result = emulator.run(tmp_path, asset, "Storage Read API")
    shown = metadata(result, NODE)
    assert shown["dagster/row_count"] == MILLION
    assert shown["octogen/read_by"] == "Storage Read API"
    assert shown["octogen/last_modified"] == EXPORTED_AT.timestamp()
    types = {column.name: column.type for column in shown["octogen/source_columns"].columns}
    assert types == {"uuid": "STRING", "current_price": "FLOAT64", "exported_at": "TIMESTAMP"}
    job: Any = emulator.client.get_job(shown["octogen/job_id"], location="US")
    assert job.labels == {"dagster_asset": NODE, "dagster_run": result.run_id}
    assert job.maximum_bytes_billed == 100 * 10**9
    assert checked(result) == {"not_empty": True, "expected_columns": True, "fresh": True}
    uuids = snapshot(tmp_path)["uuid"]
    assert (len(uuids), uuids.n_unique(), uuids.min()) == (MILLION, MILLION, "u0000000")


@pytest.mark.parametrize("api", ["REST", "Storage Read API"])
def test_both_apis_bring_each_type_in_the_same_form(
    api: str, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.share(TYPES)
    result = emulator.run(tmp_path, od.build_linked_snapshot_asset(linked), api)
    assert metadata(result, NODE)["octogen/read_by"] == api
    assert snapshot(tmp_path).sort("whole").rows(named=True) == [
        {**TYPED, "whole": 1, "text": None},
        {**TYPED, "whole": 2, "text": "text"},
    ]


def test_a_table_is_described_without_a_query(emulator: Emulator, tmp_path: Path) -> None:
    emulator.share(PRODUCTS.format(rows=25))

    @dg.asset(name="linked")
    def their_table() -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
        return dg.MaterializeResult(metadata={"dagster/table_name": f"{PROJECT}.theirs.export"})

    before = [job.job_id for job in emulator.client.list_jobs()]
    result = dg.materialize(
        [their_table, od.build_linked_products_asset(their_table)],
        resources={"bigquery": bigquery_resource()},
    )
    shown = metadata(result, "octogen_linked_products")
    table = emulator.client.get_table(f"{PROJECT}.theirs.export")
    assert (shown["octogen/table_type"], shown["dagster/row_count"]) == ("TABLE", 25)
    assert shown["octogen/last_modified"] == table.modified.timestamp()
    assert [job.job_id for job in emulator.client.list_jobs()] == before


def test_from_a_listing_to_its_products(
    emulator: Emulator, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    emulator.share(PRODUCTS.format(rows=25))
    datasets = od.build_linked_datasets_asset(dataset_id=lambda _: "acme_products")
    with Sandbox(catalogs=0, hub=True) as octogen:
        key = listing_partition_key(octogen.hub.share("acme"))
        instance.add_dynamic_partitions("octogen_listings", [key])
        hub = od.AnalyticsHubResource(project=PROJECT, endpoint=octogen.hub.endpoint)
        result = dg.materialize(
            [datasets, od.build_linked_products_asset(datasets)],
            partition_key=key,
            instance=instance,
            resources={"analytics_hub": hub, "bigquery": bigquery_resource()},
        )
    shown = metadata(result, "octogen_linked_products")
    assert shown["dagster/partition_row_count"] == 25
    assert shown["octogen/last_modified"] == EXPORTED_AT.timestamp()
    assert checked(result) == {"not_empty": True, "expected_columns": True, "fresh": True}


ADDRESSES = f"""
    SELECT
        url, url AS normalized_url, NOT ENDS_WITH(url, '/none') AS covered,
        TIMESTAMP '{EXPORTED_AT}' AS exported_at
    FROM UNNEST(['https://acme.example/1', 'https://acme.example/2', 'https://acme.example/none'])
        AS url
"""


def test_the_export_of_a_url_list_is_read_and_counted(
    emulator: Emulator, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    @dg.asset
    def articles() -> pl.DataFrame:
        urls = [f"https://acme.example/{page}" for page in ("1", "2?utm_source=mail", "none")]
        return pl.DataFrame({"sku": ["A", "B", "C"], "url": urls, "title": ["a", "b", "c"]})

    q3 = od.build_url_list_asset("q3", articles)
    export = od.build_url_list_export_asset(q3, dataset_id="q3")
    coverage = od.build_linked_snapshot_asset(export, view="url_coverage_v1")
    offers = od.build_linked_snapshot_asset(export)
    matched = od.build_url_matches_asset(q3, coverage, offers)
    in_place = od.build_linked_products_asset(export)
    emulator.client.create_dataset("q3")
    for view, rows in (
        ("url_coverage_v1", ADDRESSES),
        (
            "products_current_v1",
            f"SELECT * FROM ({PRODUCTS.format(rows=4)}) WHERE uuid > 'u0000000'",
        ),
    ):
        emulator.client.query(f"CREATE VIEW `{PROJECT}.q3.{view}` AS {rows}").result()
    with Sandbox(catalogs={"acme": 1}, hub=True, url_list_seconds=0) as octogen:
        resources: dict[str, Any] = {
            "octogen": octogen_at(octogen),
            "analytics_hub": od.AnalyticsHubResource(
                project=PROJECT, endpoint=octogen.hub.endpoint
            ),
            "bigquery": bigquery_resource(),
            "io_manager": od.ParquetSnapshotIOManager(base_dir=str(tmp_path)),
        }
        assert dg.materialize([articles, q3], instance=instance, resources=resources).success
        octogen.next_day()
        result = dg.materialize(
            [articles, q3, export, coverage, offers, matched, in_place],
            instance=instance,
            resources=resources,
        )
    matches = pl.read_parquet(tmp_path / "q3_matches.parquet")
    names = ("uuid", "sku", "status", "matched_by", "own_title", "brand")
    assert matches.select(names).sort("uuid", nulls_last=True).rows() == [
        ("u0000001", "A", "covered", "url", "a", {"name": "Acme"}),
        ("u0000002", "B", "covered", "url", "b", {"name": "Acme"}),
        ("u0000003", None, None, None, None, {"name": "Acme"}),
        (None, "C", "not_covered", None, "c", None),
    ]
    assert metadata(result, "q3_matches")["octogen/exported_at"] == EXPORTED_AT.timestamp()
    described = metadata(result, "octogen_linked_products")
    assert described["dagster/table_name"] == f"{PROJECT}.q3.products_current_v1"
    assert described["dagster/row_count"] == 3


def test_the_doctor_tries_a_query_of_a_view_without_running_it(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.share(PRODUCTS.format(rows=25))
    with Sandbox(catalogs={"kumo": 20}, hub=True) as octogen:
        for name, value in octogen.environment.items():
            monkeypatch.setenv(name, value)
        listing = octogen.hub.share("acme")
        destination = ["--listing", listing, "--project", PROJECT, "--dataset", "acme_products"]
        done = CliRunner().invoke(main, ["bq", "subscribe", *destination, "--apply"])
        assert done.exit_code == 0, done.output
        before = [job.job_id for job in emulator.client.list_jobs()]
        settings = ["--project", PROJECT, "--principal", "user:me@my.example"]
        done = CliRunner().invoke(main, ["doctor", *settings, "--json"])
    found = {each["subject"]: each for each in json.loads(done.stdout)["findings"]}
    assert (found["Listings"]["status"], found["Queries"]["status"]) == ("ok", "ok"), found
    assert "acme_products.products_current_v1" in found["Queries"]["message"]
    assert [job.job_id for job in emulator.client.list_jobs()] == before
