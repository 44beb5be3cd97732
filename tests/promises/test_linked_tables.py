"""Linked tables: each listing has checks of its own, and any column may date the rows."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import polars as pl
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
from tests.results import failure, metadata

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


def test_a_column_of_the_user_s_choice_dates_a_snapshot(
    run: Run, server: ResultServer, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    newest = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=3)
    times = [newest - timedelta(days=9), newest, newest - timedelta(hours=1)]
    server.fields += [CHANGED_ON, {"name": "exported_at", "type": "TIMESTAMP"}]
    server.rows = [
        (f"u{number}", str(int(time.timestamp()) * MICROSECONDS), "0")
        for number, time in enumerate(times)
    ]
    snapshot = build_linked_snapshot_asset(linked, modified_column="changed_on")
    result = run(snapshot)
    assert result.success
    shown = metadata(result, "octogen_linked_snapshot")
    assert shown["octogen/last_modified"] == newest.timestamp()
    (file,) = (tmp_path / "snapshots").rglob("*good*.parquet")
    assert pl.read_parquet_metadata(file)["octogen.last_modified"] == newest.isoformat()
    assert statuses(instance, snapshot, "fresh") == {GOOD: "SUCCEEDED"}
    fresh = evaluation(result, "fresh")
    assert fresh.metadata["octogen/age_hours"].value == 3.0


def test_the_export_time_dates_a_snapshot_by_default(run: Run, server: ResultServer) -> None:
    server.fields.append({"name": "exported_at", "type": "TIMESTAMP"})
    server.rows = [("u1", "0")]
    result = run(build_linked_snapshot_asset(linked))
    assert result.success
    assert metadata(result, "octogen_linked_snapshot")["octogen/last_modified"] == 0
    assert not evaluation(result, "fresh").passed


def test_a_view_that_no_column_dates_is_published_with_a_warning(
    run: Run, server: ResultServer
) -> None:
    result = run(build_linked_snapshot_asset(linked))
    assert result.success
    assert "octogen/last_modified" not in metadata(result, "octogen_linked_snapshot")
    fresh = evaluation(result, "fresh")
    assert (fresh.passed, fresh.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert str(fresh.description).endswith(
        "does not say when its rows changed. Name the column that does with modified_column, or "
        "leave this check out with max_age=None."
    )
    assert evaluation(result, "not_empty").passed


@pytest.mark.parametrize("name", ["uuid", "changed_at"], ids=["a text", "a misspelt name"])
def test_a_column_that_has_no_dates_fails_before_a_query(
    name: str, run: Run, server: ResultServer
) -> None:
    server.fields.append(CHANGED_ON)
    message = failure(run(build_linked_snapshot_asset(linked, modified_column=name)))
    assert (
        f"it has no column {name!r} with dates, to tell its last modification by. Those with "
        "dates: Changed_On. Correct modified_column."
    ) in message
    assert (server.inserted, server.dry_runs) == ([], [])


def test_a_column_that_would_not_be_read_is_refused_when_the_asset_is_defined() -> None:
    with pytest.raises(ValueError, match=r"^modified_column 'changed_on' is not among columns"):
        build_linked_snapshot_asset(linked, columns=["uuid"], modified_column="changed_on")
    build_linked_snapshot_asset(linked, columns=["CHANGED_ON"], modified_column="changed_on")


def evaluation(result: dg.ExecuteInProcessResult, check: str) -> dg.AssetCheckEvaluation:
    (found,) = (each for each in result.get_asset_check_evaluations() if each.check_name == check)
    return found
