"""The peak memory of a linked snapshot: `python -m benchmarks.linked_rows REST GRPC ROWS`.

REST and GRPC are the addresses of a BigQuery emulator; without GRPC the rows are read over REST.
The last line of the output is the peak, in units of 10^6 bytes.
"""

import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import grpc
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadGrpcTransport,
)

from octogen_dagster import ParquetSnapshotIOManager, build_linked_snapshot_asset
from tests.servers.bigquery import WithStorage

_PROJECT = "my-project"


class _BigQuery:
    """Stands for `dagster_gcp.BigQueryResource`, which needs credentials."""

    @contextmanager
    def get_client(self) -> Iterator[bigquery.Client]:
        yield bigquery.Client(project=_PROJECT, credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]


def _share(rows: int) -> str:
    """Make a view of so many rows in the emulator, and return its name."""
    view, table = f"linked.view_{rows}", f"linked.rows_{rows}"
    sql = f"""
        CREATE OR REPLACE TABLE {table} AS SELECT
            FORMAT('u%07d', i) AS uuid, FORMAT('Boot %d', i) AS title,
            CAST(i AS FLOAT64) AS current_price, CURRENT_TIMESTAMP() AS exported_at
        FROM UNNEST(GENERATE_ARRAY(1, {rows})) AS i
    """
    with _BigQuery().get_client() as client:
        client.create_dataset("linked", exists_ok=True)
        client.query(sql).result()
        client.query(f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM {table}").result()
    return f"{_PROJECT}.{view}"


def _materialize(view: str, folder: str, bigquery: object) -> None:
    @dg.asset
    def linked() -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
        return dg.MaterializeResult(metadata={"dagster/table_name": view})

    dg.materialize(
        [linked, build_linked_snapshot_asset(linked)],
        resources={
            "bigquery": bigquery,
            "io_manager": ParquetSnapshotIOManager(base_dir=folder),
        },
    )


def _with_storage(rest: str, storage: str) -> WithStorage:
    channel = grpc.insecure_channel(storage, options=[("grpc.max_receive_message_length", -1)])
    transport = BigQueryReadGrpcTransport(channel=channel)
    return WithStorage(rest, BigQueryReadClient(transport=transport))  # type: ignore[no-untyped-call]


def main() -> None:
    """Materialize one row to warm up, then the rows, and print the peak memory."""
    rest, storage, rows = sys.argv[1:]
    os.environ["BIGQUERY_EMULATOR_HOST"] = rest
    views = [_share(1), _share(int(rows))]
    if storage:
        del os.environ["BIGQUERY_EMULATOR_HOST"]
    for view in views:
        with tempfile.TemporaryDirectory() as folder:
            _materialize(view, folder, _with_storage(rest, storage) if storage else _BigQuery())
    unit = 1 if sys.platform == "darwin" else 1024
    print("\n" + str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6))


if __name__ == "__main__":
    main()
