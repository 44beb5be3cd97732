"""Rows that do not come, shown with a shorter patience than that of ten minutes."""

from pathlib import Path

import dagster as dg
import pytest

from octogen_dagster import (
    AnalyticsHubResource,
    ParquetSnapshotIOManager,
    build_linked_snapshot_asset,
)
from octogen_dagster.bigquery import queries
from tests.results import failure, is_retried
from tests.servers.bigquery import PROJECT, VIEW, BigQueryServer, serving


@dg.asset
def linked() -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
    return dg.MaterializeResult(metadata={"dagster/table_name": VIEW})


def test_a_server_that_sends_no_rows_does_not_hold_a_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "_SILENCE_TIMEOUT", 0.5)
    server = BigQueryServer(silent="pageToken=2")
    with serving(server, tmp_path):
        result = dg.materialize(
            [linked, build_linked_snapshot_asset(linked, retry_policy=dg.RetryPolicy())],
            resources={
                "bigquery": AnalyticsHubResource(project=PROJECT),
                "io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path / "snapshots")),
            },
            raise_on_error=False,
        )
    assert "BigQuery sent none for 0 seconds. Try again later." in failure(result)
    assert is_retried(result)
    assert len(server.inserted) == 1
