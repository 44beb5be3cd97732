"""The asset of linked snapshots, with BigQuery played by a server of the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster_gcp import BigQueryResource

from octogen_dagster.bigquery.linked_snapshot import build_linked_snapshot_asset
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from tests.bigquery.rest_api import PROJECT, answering, environment
from tests.bigquery.result_server import VIEW, ResultServer
from tests.results import failure, metadata

LISTINGS = dg.DynamicPartitionsDefinition(name="octogen_listings")
AT_ONCE = dg.RetryPolicy(max_retries=1)
NODE = "octogen_linked_snapshot"


@dg.asset
def linked() -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
    return dg.MaterializeResult(metadata={"dagster/table_name": VIEW})


@dg.asset(partitions_def=LISTINGS)
def linked_datasets() -> None: ...


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ResultServer]:
    server = ResultServer()
    with answering(server) as address:
        for name, value in environment(address, address, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield server


def run(
    folder: Path, retry_policy: dg.RetryPolicy | None = None, **arguments: Any
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [linked, build_linked_snapshot_asset(linked, retry_policy=retry_policy, **arguments)],
        resources={
            "bigquery": BigQueryResource(project=PROJECT),
            "io_manager": ParquetSnapshotIOManager(base_dir=str(folder / "snapshots")),
        },
        raise_on_error=False,
    )


def stored(folder: Path) -> list[str]:
    """The files of the store, those that are being written included."""
    return [
        name
        for _, _, names in os.walk(folder / "snapshots")
        for name in names
        if not name.startswith("linked")
    ]


def rows(folder: Path) -> list[Any]:
    return pl.read_parquet(folder / "snapshots" / f"{NODE}.parquet").rows()


def test_names_pool_group_and_checks_are_those_of_the_other_assets() -> None:
    snapshot = build_linked_snapshot_asset(
        linked_datasets, key_prefix="shop", owners=["team:data"], max_age=None
    )
    spec = snapshot.get_asset_spec()
    assert snapshot.key == dg.AssetKey(["shop", "octogen_linked_snapshot"])
    assert (snapshot.op.pool, spec.group_name, spec.owners) == (None, "octogen", ["team:data"])
    assert spec.kinds == {"octogen", "bigquery", "parquet"}
    assert snapshot.partitions_def == LISTINGS
    assert [dep.asset_key for dep in spec.deps] == [linked_datasets.key]
    assert {key.name for key in snapshot.check_keys} == {"not_empty", "expected_columns"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": []}, "columns must be a list of one or more different names"),
        ({"where": ""}, "where must be an expression in SQL"),
        ({"max_age": timedelta()}, "max_age must be a positive timedelta or None"),
        ({"min_rows_ratio": 2}, "min_rows_ratio must be a share from 0 to 1"),
        ({"max_bytes_billed": 0}, "max_bytes_billed must be a positive whole number of bytes"),
    ],
)
def test_wrong_arguments_are_refused_when_the_asset_is_defined(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        build_linked_snapshot_asset(linked, **arguments)


def test_the_query_has_limits_and_its_price_is_reported(
    server: ResultServer, tmp_path: Path
) -> None:
    result = run(tmp_path, columns=["UUID"], where="TRUE", max_bytes_billed=10**9)
    assert result.success
    (body,) = server.inserted
    query = body["configuration"]["query"]
    assert query["query"] == f"SELECT `uuid`\nFROM `{VIEW}`\nWHERE (\nTRUE\n)"
    assert query["maximumBytesBilled"] == "1000000000"
    assert body["jobReference"]["location"] == "EU"
    shown = metadata(result, NODE)
    assert (shown["octogen/estimated_bytes"], shown["octogen/billed_bytes"]) == (1000, 10 * 2**20)
    assert shown["octogen/query_dollars"] == round(10 * 2**20 / 2**40 * 6.25, 6)
    assert rows(tmp_path) == [("u1",), ("u2",), ("u3",)]


def test_a_query_over_the_limit_is_not_run(server: ResultServer, tmp_path: Path) -> None:
    result = run(tmp_path, max_bytes_billed=999)
    assert "it reads 1,000 bytes by BigQuery's estimate, and max_bytes_billed is 999" in (
        failure(result)
    )
    assert (server.inserted, stored(tmp_path)) == ([], [])


def test_a_column_that_polars_cannot_hold_fails_before_a_query(
    server: ResultServer, tmp_path: Path
) -> None:
    server.fields.append({"name": "weight", "type": "BIGNUMERIC"})
    message = failure(run(tmp_path))
    assert "column 'weight' is BIGNUMERIC, which Polars cannot hold. Nothing was read." in message
    assert (server.inserted, server.dry_runs) == ([], [])


def test_a_result_with_fewer_rows_than_it_claims_is_not_published(
    server: ResultServer, tmp_path: Path
) -> None:
    assert run(tmp_path).success
    server.total_rows, server.rows = 5, [("v1",), ("v2",)]
    message = failure(run(tmp_path))
    assert "is not complete: 2 rows were written of 2 read; the result of BigQuery's job" in (
        message
    )
    assert message.rstrip().endswith("has 5. Nothing was published; run it again.")
    assert rows(tmp_path) == [("u1",), ("u2",), ("u3",)]
    assert stored(tmp_path) == [f"{NODE}.parquet"]


def test_a_retried_run_reads_the_result_of_its_first_query(
    server: ResultServer, tmp_path: Path
) -> None:
    server.page_failures = 1
    result = run(tmp_path, retry_policy=AT_ONCE)
    assert result.success
    assert [event for event in result.all_events if event.is_step_up_for_retry]
    assert len(server.inserted) == 1
    assert rows(tmp_path) == [("u1",), ("u2",), ("u3",)]


def test_a_read_that_fails_leaves_nothing_behind(server: ResultServer, tmp_path: Path) -> None:
    server.page_failures = 2
    message = failure(run(tmp_path, retry_policy=AT_ONCE))
    assert f"The rows of {VIEW}: BigQuery failed (504 timeout: The result is late)" in message
    assert stored(tmp_path) == []


def test_a_view_without_rows_is_not_published_as_a_whole_catalog(
    server: ResultServer, tmp_path: Path
) -> None:
    server.rows = []
    message = failure(run(tmp_path))
    assert "was not published: the service sent no products (min_rows_ratio is 0.5)." in message
    assert stored(tmp_path) == []
    assert run(tmp_path, min_rows_ratio=0).success
    assert rows(tmp_path) == []
