"""build_linked_snapshot_asset: store linked views as Parquet snapshots."""

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from octogen_dagster.assets.definition import ACCEPT_SHRINKING, ACCEPT_SHRINKING_CONFIG, Metadata
from octogen_dagster.bigquery.linked_tables import LinkedTables, OpenTable
from octogen_dagster.bigquery.linked_view import LinkedScan, build_select, check_arguments
from octogen_dagster.bigquery.queries import (
    MAX_BYTES_BILLED,
    QueryRows,
    query_metadata,
)
from octogen_dagster.bigquery.table_checks import DOCUMENTED
from octogen_dagster.bigquery.tables import (
    CONSOLE,
    EXPORTED_AT,
    console_url,
    table_schema,
)
from octogen_dagster.frames.kinds import TableKind
from octogen_dagster.frames.source import MIN_ROWS_PERCENT
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors
from octogen_dagster.sharing.names import TABLE
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.validation import require_percent


def build_linked_snapshot_asset(
    linked_datasets: dg.AssetsDefinition,
    *,
    name: str | dg.AssetSpec | None = None,
    view: str | None = None,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    max_age: timedelta | None = timedelta(days=2),
    modified_column: str | None = None,
    min_rows_percent: float = MIN_ROWS_PERCENT,
    max_bytes_billed: int | None = MAX_BYTES_BILLED,
    bigquery_resource_key: str = "bigquery",
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset that stores snapshots of a view in each linked dataset.

    A BigQuery query selects the rows. The rows are streamed as Arrow batches into the asset's IO
    manager, `ParquetSnapshotIOManager`. Octogen does not charge for the rows. Rows are read with
    the Storage Read API. If this API rejects the request, rows are read over REST, which is slower.
    A retried run reuses the query's result, so the query is billed only once.

    A snapshot has the view's columns with Polars types. The metadata contain their BigQuery types.
    If a snapshot differs from the previous snapshot only in the modified column, the data version
    stays the same, so downstream assets are not triggered. Each partition has separate check
    results:

    * `not_empty`: the result has rows;
    * `expected_columns`: the result has the expected columns, by default the documented columns;
    * `fresh`: the newest value in the modified column is at most `max_age` old (a warning).

    Args:
        linked_datasets: An asset built by `build_linked_datasets_asset` or
            `build_url_list_export_asset`, or another asset that reports `dagster/table_name`. The
            new asset has the same partitions.
        name: The asset's name or `dagster.AssetSpec`. Defaults to `octogen_linked_snapshot`, or to
            `octogen_<view>` if you set `view`.
        view: The view in the linked dataset, such as `url_coverage_v1`. Defaults to the view that
            `linked_datasets` reports, `products_current_v1`.
        columns: Names of the columns to read. Defaults to all columns. BigQuery bills only for the
            columns that are read.
        where: A BigQuery SQL expression that filters the rows, such as `current_price > 10`.
            Defaults to all rows.
        max_age: Maximum time since the last modification; None omits the `fresh` check.
        modified_column: The TIMESTAMP, DATETIME or DATE column whose newest value is the
            modification time. Defaults to `exported_at` if this column is read.
        min_rows_percent: Minimum size of a full snapshot, as a percentage of the previous
            snapshot's row count. If a snapshot is smaller or empty, the run fails and the previous
            snapshot is kept. To accept the new snapshot in a single run, set
            `accept_shrinking: true` in the run configuration. 0 accepts any size. If `where` is
            set, any number of rows is accepted.
        max_bytes_billed: Maximum bytes billed for the query; None means no limit. BigQuery does not
            run a query that would exceed the limit.
        bigquery_resource_key: The resource key of a `dagster_gcp.BigQueryResource` or an
            `AnalyticsHubResource`.
        asset_arguments: Any other argument for `@dagster.asset`, such as `group_name`,
            `automation_condition` or `retry_policy`.

    Raises:
        ValueError: `view` is not a name, `columns` or `where` is empty, a column is listed twice,
            `modified_column` is not in `columns`, `max_age` or `max_bytes_billed` is not positive,
            or `min_rows_percent` is not from 0 to 100.
        MissingPackageError: The extra `bigquery` is not installed.
    """
    check_arguments(columns, where, modified_column)
    require_percent("min_rows_percent", min_rows_percent)
    if view is not None and not re.fullmatch(r"\w{1,1024}", view):
        raise ValueError(
            f"`view` must be the name of a view, such as url_coverage_v1; got {view!r}."
        )
    name = name or ("octogen_linked_snapshot" if view is None else f"octogen_{view}")
    tables = LinkedTables(
        linked_datasets,
        columns or DOCUMENTED.get(view or TABLE, ()),
        max_age,
        modified_column,
        max_bytes_billed,
        bigquery_resource_key,
        view,
    )
    own, given = tables.asset_arguments("build_linked_snapshot_asset", name, asset_arguments)
    own |= {
        "config_schema": {ACCEPT_SHRINKING: ACCEPT_SHRINKING_CONFIG},
        "kinds": {"octogen", "bigquery", "parquet"},
        "description": f"Snapshots of the view {view or TABLE} in each linked dataset.",
        "retry_policy": dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL),
    }
    # Each export has a new time, even if nothing else changed.
    kind = TableKind(volatile=(modified_column or EXPORTED_AT,))

    @snapshot_asset(own, given, kind=kind, takes_ranges=False)
    def linked_snapshot(run: SnapshotRun, _partition: str | None) -> Iterator[Any]:
        context = run.context
        accepts_any = where is not None or context.op_execution_context.op_config[ACCEPT_SHRINKING]
        with tables.opened(context, stores_rows=True) as table:
            modified = tables.find_modified_column(table, EXPORTED_AT)
            sql = build_select(table.name, table.info.schema, columns, where)
            rows, metadata = _query(context, tables, table, sql)
            limit = 0.0 if accepts_any else min_rows_percent
            # Only the export of a URL list reports a time. It has products only for these URLs.
            selection = where or ("the URLs in a URL list" if table.exported_at else None)
            scan = LinkedScan(rows, table.name, limit, modified, selection)
            # The rows are read and published before the next line runs.
            yield dg.MaterializeResult(value=scan, metadata=metadata)
        subject = f"The snapshot of {table.name}"
        yield from tables.results(subject, rows.total, rows.schema, scan.last_modified)

    return linked_snapshot


def _query(
    context: dg.AssetExecutionContext, tables: LinkedTables, table: OpenTable, sql: str
) -> tuple[QueryRows, Metadata]:
    """Run a query, and return the result rows and the asset metadata."""
    job = tables.query(context, table, sql, f"Query on table {table.name}")
    with translate_google_errors(BIGQUERY, f"The rows of {table.name}"):
        rows = QueryRows(table.client, job)
    return rows, {
        "octogen/source_table": str(table.name),
        CONSOLE: console_url(*table.name),
        "octogen/source_columns": table_schema(rows.schema),
        "octogen/sql": dg.MetadataValue.md(f"```sql\n{sql}\n```"),
        **query_metadata(job),
    }
