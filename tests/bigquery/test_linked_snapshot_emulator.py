"""Linked views as snapshots, read from the BigQuery emulator by both of its APIs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, time, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import grpc
import polars as pl
import pytest
from dagster_gcp import BigQueryResource
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadGrpcTransport,
)

from octogen_dagster.bigquery import query_result
from octogen_dagster.bigquery.linked_snapshot import build_linked_snapshot_asset
from octogen_dagster.bigquery.partitions import listing_partitions
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from tests.bigquery.rest_api import ENVIRONMENT, PROJECT, answering, environment, running_emulator
from tests.results import failure, metadata

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not ENVIRONMENT, reason="needs the BigQuery emulator: see tests/bigquery/emulator.sh"
    ),
]

MILLION = 1_000_000
ACME = "octogen-prod:us:catalogs:acme"
EXPORTED_AT = datetime.now(timezone.utc).replace(microsecond=0)
TABLE = f"{PROJECT}.acme_products.products_current_v1"
PRODUCTS = f"""
    SELECT
        FORMAT('u%07d', i) AS uuid,
        CAST(i AS FLOAT64) AS current_price,
        TIMESTAMP_SUB(TIMESTAMP '{EXPORTED_AT}', INTERVAL MOD(i, 100) MINUTE) AS exported_at
    FROM UNNEST(GENERATE_ARRAY(1, {{rows}})) AS i
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
ROWS_OVER_REST = query_result.PAGE_ROWS + 5_000


class Emulator:
    """The emulator, with clients of both of its APIs."""

    def __init__(self, client: bigquery.Client, storage: BigQueryReadClient) -> None:
        self.client = client
        self.storage = storage

    def share(self, products: str) -> None:
        """Let Octogen export these products."""
        table = f"`{PROJECT}.theirs.export`"
        self.client.query(f"CREATE OR REPLACE TABLE {table} AS {products}").result()
        self.client.query(f"CREATE OR REPLACE VIEW `{TABLE}` AS SELECT * FROM {table}").result()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    folder = tmp_path_factory.mktemp("bigquery")
    port = free_port()
    with (
        running_emulator(folder, grpc_port=port) as address,
        answering(lambda *_: (404, {})) as token_server,
        pytest.MonkeyPatch.context() as patch,
        grpc.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1)]
        ) as channel,
    ):
        for name, value in environment(address, token_server, folder).items():
            patch.setenv(name, value)
        with BigQueryResource(project=PROJECT).get_client() as client, closing(client):
            for dataset in ("theirs", "acme_products"):
                client.create_dataset(dataset)
            transport = BigQueryReadGrpcTransport(channel=channel)
            yield Emulator(client, BigQueryReadClient(transport=transport))  # type: ignore[no-untyped-call]  # it has no types


def free_port() -> int:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


@pytest.fixture
def by_storage(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the Storage Read API of the emulator to the code, which knows only Google's own."""
    monkeypatch.setattr(emulator.storage.transport, "close", lambda: None)
    monkeypatch.setattr(query_result, "_open_storage_client", lambda _client: emulator.storage)


@dg.asset(partitions_def=listing_partitions)
def linked_datasets() -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
    return dg.MaterializeResult(metadata={"dagster/table_name": TABLE})


class Snapshots:
    """Runs of a snapshot asset for the listing, which is subscribed to."""

    def __init__(self, instance: dg.DagsterInstance, folder: Path) -> None:
        self._instance = instance
        self._folder = folder
        instance.add_dynamic_partitions("octogen_listings", [ACME])
        self._run(linked_datasets)

    def take(self, *, accept_shrinking: bool = False, **arguments: Any) -> Any:
        snapshot = build_linked_snapshot_asset(linked_datasets, **arguments)
        ops = {"octogen_linked_snapshot": {"config": {"accept_shrinking": accept_shrinking}}}
        return self._run(snapshot, run_config={"ops": ops})

    @property
    def frame(self) -> pl.DataFrame:
        name = f"{ACME.replace(':', '%3A')}.parquet"
        return pl.read_parquet(self._folder / "octogen_linked_snapshot" / name, glob=False)

    def _run(self, asset: dg.AssetsDefinition, **arguments: Any) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [linked_datasets, asset] if asset is not linked_datasets else [asset],
            selection=[asset],
            resources={
                "bigquery": BigQueryResource(project=PROJECT),
                "io_manager": ParquetSnapshotIOManager(base_dir=str(self._folder)),
            },
            instance=self._instance,
            partition_key=ACME,
            raise_on_error=False,
            **arguments,
        )


@pytest.fixture
def snapshots(instance: dg.DagsterInstance, tmp_path: Path, emulator: Emulator) -> Snapshots:
    return Snapshots(instance, tmp_path)


def checked(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {each.check_name: each.passed for each in result.get_asset_check_evaluations()}


@pytest.mark.usefixtures("by_storage")
def test_a_million_rows_become_a_snapshot(emulator: Emulator, snapshots: Snapshots) -> None:
    emulator.share(PRODUCTS.format(rows=MILLION))
    result = snapshots.take(columns=["uuid", "current_price", "exported_at"])
    assert result.success

    shown = metadata(result, "octogen_linked_snapshot")
    assert shown["dagster/partition_row_count"] == MILLION
    assert shown["octogen/read_by"] == "Storage Read API"
    assert shown["octogen/last_modified"] == EXPORTED_AT.timestamp()
    assert (shown["octogen/billed_bytes"], shown["octogen/query_dollars"]) == (0, 0.0)
    assert shown["octogen/source_table"] == TABLE
    types = {column.name: column.type for column in shown["octogen/source_columns"].columns}
    assert types == {"uuid": "STRING", "current_price": "FLOAT64", "exported_at": "TIMESTAMP"}
    assert shown["octogen/preview"].startswith("| uuid | current_price | exported_at |\n| --- |")
    job = emulator.client.get_job(shown["octogen/job_id"], location="US")
    assert job.labels["dagster_partition"] == "octogen-prod_us_catalogs_acme"
    assert checked(result) == {"not_empty": True, "expected_columns": True, "fresh": True}
    uuids = snapshots.frame["uuid"]
    assert (len(uuids), uuids.n_unique(), uuids.min()) == (MILLION, MILLION, "u0000001")


@pytest.mark.parametrize("api", ["REST", "Storage Read API"])
def test_both_apis_bring_each_type_in_the_same_form(
    api: str, emulator: Emulator, snapshots: Snapshots, request: pytest.FixtureRequest
) -> None:
    if api != "REST":
        request.getfixturevalue("by_storage")
    emulator.share(TYPES)
    result = snapshots.take()
    assert metadata(result, "octogen_linked_snapshot")["octogen/read_by"] == api
    assert snapshots.frame.sort("whole").rows(named=True) == [
        {**TYPED, "whole": 1, "text": None},
        {**TYPED, "whole": 2, "text": "text"},
    ]
    assert checked(result)["expected_columns"] is False


def test_rest_reads_page_after_page(emulator: Emulator, snapshots: Snapshots) -> None:
    emulator.share(PRODUCTS.format(rows=ROWS_OVER_REST))
    result = snapshots.take(columns=["UUID"], max_age=None)
    assert checked(result) == {"not_empty": True, "expected_columns": True}
    assert snapshots.frame.columns == ["uuid"]
    assert snapshots.frame["uuid"].n_unique() == ROWS_OVER_REST


@pytest.mark.parametrize("api", ["REST", "Storage Read API"])
def test_a_condition_may_select_no_rows(
    api: str, emulator: Emulator, snapshots: Snapshots, request: pytest.FixtureRequest
) -> None:
    if api != "REST":
        request.getfixturevalue("by_storage")
    emulator.share(PRODUCTS.format(rows=3))
    result = snapshots.take(where="current_price > 3 OR FALSE -- none", columns=["uuid"])
    assert result.success
    assert checked(result) == {"not_empty": False, "expected_columns": True, "fresh": False}
    assert snapshots.frame.schema == {"uuid": pl.String()}
    assert len(snapshots.frame) == 0


def test_a_view_that_lost_its_rows_replaces_no_snapshot_by_itself(
    emulator: Emulator, snapshots: Snapshots
) -> None:
    emulator.share(PRODUCTS.format(rows=10))
    assert snapshots.take().success
    emulator.share(PRODUCTS.format(rows=4))
    message = failure(snapshots.take())
    assert "was not published: the service sent 4 products, and the latest snapshot has 10 " in (
        message
    )
    assert "Octogen exported the catalog only in part" in message
    assert len(snapshots.frame) == 10
    assert snapshots.take(accept_shrinking=True).success
    assert len(snapshots.frame) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ["uid"]}, "has no column 'uid'. Its columns: uuid, current_price,"),
        ({"where": "TRUE); DROP VIEW x; SELECT (1"}, "it is SCRIPT, and only one SELECT is run."),
        ({"where": "price > 1"}, "400 invalidQuery: Unrecognized name: price"),
    ],
)
def test_a_wrong_query_fails_without_retries(
    arguments: dict[str, Any], message: str, emulator: Emulator, snapshots: Snapshots
) -> None:
    emulator.share(PRODUCTS.format(rows=3))
    result = snapshots.take(**arguments)
    assert message in failure(result)
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
