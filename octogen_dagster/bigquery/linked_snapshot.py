"""The asset of linked snapshots: it brings each linked view into the store of the IO manager."""

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from octogen_dagster.assets.definition import ACCEPT_SHRINKING, ACCEPT_SHRINKING_CONFIG
from octogen_dagster.bigquery.linked_tables import LinkedTables
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
    """Build an asset of snapshots of a view of each linked dataset, by default the products.

    Octogen charges nothing for the rows. A query in BigQuery selects them, and they stream in
    batches of Arrow into the asset's IO manager, `ParquetSnapshotIOManager`. They are read by the
    Storage Read API, or by REST, which is slower, if that refuses. A retried run takes the result
    of its query and does not pay again.

    The columns are those of the view, with Polars' types; their types in BigQuery are in the
    metadata. A snapshot that differs from the previous one only in the modified column keeps its
    data version, so it triggers nothing downstream. Each partition has checks of its own:

    * `not_empty`: there are rows;
    * `expected_columns`: the columns are there, by default those that Octogen documents;
    * `fresh`: the newest value of the modified column is not older than max_age (a warning).

    Args:
        linked_datasets: An asset of `build_linked_datasets_asset` or `build_url_list_export_asset`,
            or another one that reports `dagster/table_name`. The new asset has the same partitions.
        name: The asset's name or `dagster.AssetSpec`; by default `octogen_linked_snapshot`, and of
            another view `octogen_<view>`.
        view: The view of the linked dataset, such as `url_coverage_v1`; by default the one that is
            reported, `products_current_v1`.
        columns: The names of the columns to read; by default all. BigQuery bills for those that are
            read.
        where: An expression in BigQuery's SQL that selects the rows, such as `current_price > 10`;
            by default all.
        max_age: The maximum age of the last modification; None leaves the check out.
        modified_column: The column whose newest value is the last modification; by default
            `exported_at`, if it is read. It must be a TIMESTAMP, DATETIME or DATE.
        min_rows_percent: The smallest snapshot of all rows that is published, in percent of
            the rows of the one that it replaces. With fewer rows, or none, the run fails and the
            snapshot there stays; `accept_shrinking: true` in the run configuration accepts it for
            one run. 0 publishes any snapshot. With `where` there may be any number of rows.
        max_bytes_billed: The bytes that the query may be billed for; None sets no limit. BigQuery
            does not run a query that would be billed for more.
        bigquery_resource_key: The key of a `dagster_gcp.BigQueryResource`, or of an
            `AnalyticsHubResource`.
        asset_arguments: Any other argument of `@dagster.asset`, such as `group_name`,
            `automation_condition`, `retry_policy`.

    Raises:
        ValueError: view is not a name, columns or where are empty, a column is named twice,
            modified_column is not among the columns, max_age or max_bytes_billed is not positive,
            or min_rows_percent is not from 0 to 100.
        MissingPackageError: The packages of the extra `bigquery` are not installed.
    """
    check_arguments(columns, where, modified_column)
    require_percent("min_rows_percent", min_rows_percent)
    if view is not None and not re.fullmatch(r"\w{1,1024}", view):
        raise ValueError(f"view must be the name of a view, such as url_coverage_v1, not {view!r}.")
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
        "description": f"The view {view or TABLE} of each linked dataset, as a snapshot.",
        "retry_policy": dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL),
    }
    # Each export has another time, also if nothing else changed.
    kind = TableKind(volatile=(modified_column or EXPORTED_AT,))

    @snapshot_asset(own, given, kind=kind, takes_ranges=False)
    def linked_snapshot(run: SnapshotRun, _partition: str | None) -> Iterator[Any]:
        context = run.context
        accepts_any = where is not None or context.op_execution_context.op_config[ACCEPT_SHRINKING]
        with tables.opened(context, stores_rows=True) as table:
            dated_by = tables.dated_by(table, EXPORTED_AT)
            sql = build_select(table.name, table.there.schema, columns, where)
            job = tables.query(context, table, sql, f"The query of {table.name}")
            with translate_google_errors(BIGQUERY, f"The rows of {table.name}"):
                rows = QueryRows(table.client, job)
            metadata = {
                "octogen/source_table": str(table.name),
                CONSOLE: console_url(*table.name),
                "octogen/source_columns": table_schema(rows.schema),
                "octogen/sql": dg.MetadataValue.md(f"```sql\n{sql}\n```"),
                **query_metadata(job),
            }
            limit = 0.0 if accepts_any else min_rows_percent
            # Only a URL list says when it was exported, and it has products of its addresses.
            selection = where or ("the addresses of a URL list" if table.exported_at else None)
            scan = LinkedScan(rows, table.name, limit, dated_by, selection)
            # The rows are read and published before the next line runs.
            yield dg.MaterializeResult(value=scan, metadata=metadata)
        subject = f"The snapshot of {table.name}"
        yield from tables.results(subject, rows.total, rows.schema, scan.last_modified)

    return linked_snapshot
