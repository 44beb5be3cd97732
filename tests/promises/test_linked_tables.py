"""Linked tables: each listing has checks of its own, and any column may date the rows."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster_gcp import BigQueryResource

from octogen_dagster import (
    ParquetSnapshotIOManager,
    build_linked_products_asset,
    build_linked_snapshot_asset,
    listing_partition_key,
    listing_partitions,
)
from tests.bigquery.rest_api import PROJECT, answering, environment
from tests.bigquery.result_server import ResultServer

GOOD, BAD = (
    listing_partition_key(f"projects/octogen/locations/us/dataExchanges/e/listings/{name}")
    for name in ("good", "bad")
)
CHANGED_ON = {"name": "Changed_On", "type": "TIMESTAMP"}
MICROSECONDS = 1_000_000

Run = Callable[..., dg.ExecuteInProcessResult]


@dg.asset(partitions_def=listing_partitions)
def linked(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
    dataset = f"octogen_{context.partition_key.rpartition(':')[2]}"
    return dg.MaterializeResult(
        metadata={"dagster/table_name": f"{PROJECT}.{dataset}.products_current_v1"}
    )


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ResultServer]:
    """BigQuery with the linked view of each listing."""
    server = ResultServer()
    (view,) = server.tables.values()
    for dataset in ("octogen_good", "octogen_bad"):
        reference = {**view["tableReference"], "datasetId": dataset}
        server.tables[f"{dataset}.products_current_v1"] = {**view, "tableReference": reference}
    with answering(server) as address:
        for name, value in environment(address, address, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def run(server: ResultServer, instance: dg.DagsterInstance, tmp_path: Path) -> Run:
    instance.add_dynamic_partitions("octogen_listings", [GOOD, BAD])

    def run(asset: dg.AssetsDefinition, key: str = GOOD) -> dg.ExecuteInProcessResult:
        server.rows = [] if key == BAD else server.rows
        return dg.materialize(
            [linked, asset],
            partition_key=key,
            instance=instance,
            resources={
                "bigquery": BigQueryResource(project=PROJECT),
                "io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path / "snapshots")),
            },
            raise_on_error=False,
        )

    return run


@pytest.mark.parametrize("keys", [(GOOD, BAD), (BAD, GOOD)], ids=["good first", "bad first"])
def test_one_listing_s_green_does_not_hide_another_s_red(
    keys: tuple[str, str], run: Run, server: ResultServer, instance: dg.DagsterInstance
) -> None:
    snapshot = build_linked_snapshot_asset(linked, min_rows_ratio=0, max_age=None)
    rows = server.rows
    for key in keys:
        server.rows = rows
        assert run(snapshot, key).success
    assert statuses(instance, snapshot, "not_empty") == {GOOD: "SUCCEEDED", BAD: "FAILED"}


@pytest.mark.parametrize("keys", [(GOOD, BAD), (BAD, GOOD)], ids=["good first", "bad first"])
def test_a_table_that_is_described_where_it_is_has_its_own_verdict_too(
    keys: tuple[str, str], run: Run, server: ResultServer, instance: dg.DagsterInstance
) -> None:
    now = str(int(time.time() * 1000))
    for name, rows, changed in (("good", "25", now), ("bad", "0", "1000")):
        table = server.tables[f"octogen_{name}.products_current_v1"]
        table |= {"type": "TABLE", "numRows": rows, "lastModifiedTime": changed}
    products = build_linked_products_asset(linked)
    for key in keys:
        assert run(products, key).success
    assert statuses(instance, products, "not_empty") == {GOOD: "SUCCEEDED", BAD: "FAILED"}
    assert statuses(instance, products, "fresh") == {GOOD: "SUCCEEDED", BAD: "FAILED"}


def statuses(
    instance: dg.DagsterInstance, asset: dg.AssetsDefinition, check: str
) -> dict[str | None, str]:
    """The status of a check by partition, as Dagster's storage has it."""
    infos = instance.event_log_storage.get_asset_check_partition_info(
        [dg.AssetCheckKey(asset.key, check)]
    )
    return {info.partition_key: info.latest_execution_status.value for info in infos}
