"""build_linked_products_asset: describe and check linked tables without copying their rows."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from octogen_dagster.assets.definition import Metadata, hours, octogen_asset
from octogen_dagster.bigquery.linked_tables import LinkedTables, OpenTable
from octogen_dagster.bigquery.queries import MAX_BYTES_BILLED, REQUEST_TIMEOUT, query_metadata
from octogen_dagster.bigquery.table_checks import PRODUCT_COLUMNS, age_of
from octogen_dagster.bigquery.tables import (
    CONSOLE,
    EXPORTED_AT,
    TABLE_NAME,
    TableName,
    console_url,
    table_schema,
)
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors


def build_linked_products_asset(
    linked_datasets: dg.AssetsDefinition,
    *,
    name: str | dg.AssetSpec = "octogen_linked_products",
    max_age: timedelta | None = timedelta(days=2),
    modified_column: str | None = None,
    columns: Sequence[str] = PRODUCT_COLUMNS,
    max_bytes_billed: int | None = MAX_BYTES_BILLED,
    bigquery_resource_key: str = "bigquery",
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset that describes the products in each linked dataset.

    The products stay in BigQuery. The asset reports the linked table's row count, columns and
    modification time. Each partition has separate check results:

    * `not_empty`: the table has rows;
    * `expected_columns`: the table has the expected columns;
    * `fresh`: the table was modified at most `max_age` ago (a warning).

    For a view, BigQuery does not report when rows changed. In this case, a query counts the rows
    and reads the modification time, which is the newest value in a column. The same query runs if
    BigQuery does not report a table's row count. The metadata contain the cost of the query.

    Args:
        linked_datasets: An asset built by `build_linked_datasets_asset`, or another asset that
            reports `dagster/table_name`. The new asset has the same partitions.
        name: The asset's name or `dagster.AssetSpec`.
        max_age: Maximum time since the last modification; None omits the `fresh` check.
        modified_column: The column whose newest value is the modification time. Defaults to
            BigQuery's modification time for a table, and to the column `exported_at`, if it exists,
            for a view.
        columns: Names of the expected columns.
        max_bytes_billed: Maximum bytes billed for the query; None means no limit. BigQuery does not
            run a query that would exceed the limit.
        bigquery_resource_key: The resource key of a `dagster_gcp.BigQueryResource` or an
            `AnalyticsHubResource`.
        asset_arguments: Any other argument for `@dagster.asset`, such as `group_name`,
            `automation_condition` or `retry_policy`.

    Raises:
        ValueError: `max_age` or `max_bytes_billed` is not positive.
        MissingPackageError: The extra `bigquery` is not installed.
    """
    tables = LinkedTables(
        linked_datasets, columns, max_age, modified_column, max_bytes_billed, bigquery_resource_key
    )

    own, given = tables.asset_arguments("build_linked_products_asset", name, asset_arguments)
    own["description"] = (
        "Row count, columns and modification time for each linked dataset. The products stay in "
        "BigQuery."
    )

    @octogen_asset(own, given)
    def linked_products(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster reads it as having no value
        with tables.opened(context) as table:
            rows, last_modified, metadata = _describe(context, tables, table)
        context.add_asset_metadata(metadata)
        schema = table.info.schema
        return dg.MaterializeResult(
            check_results=tables.results(table.name, rows, schema, last_modified)
        )

    return linked_products


def _describe(
    context: dg.AssetExecutionContext, tables: LinkedTables, table: OpenTable
) -> tuple[int, datetime | None, Metadata]:
    """Return the row count, the modification time and the asset metadata for a table."""
    name, info = table.name, table.info
    is_table = info.table_type == "TABLE"
    is_counted = is_table and info.num_rows is not None
    column = tables.find_modified_column(table, None if is_counted else EXPORTED_AT)
    rows = info.num_rows
    last_modified = info.modified if is_table else None
    cost: Metadata = {}
    if column or not is_counted:
        subject = f"Row count query on table {name}"
        job = tables.query(context, table, build_count(name, column), subject)
        with translate_google_errors(BIGQUERY, f"Table {name}"):
            ((rows, newest),) = job.result(timeout=REQUEST_TIMEOUT)
        last_modified = newest if column else last_modified
        cost = query_metadata(job)
    row_count = "partition_row_count" if context.has_partition_key else "row_count"
    metadata: Metadata = {
        TABLE_NAME: str(name),
        f"dagster/{row_count}": rows,
        "dagster/column_schema": table_schema(info.schema),
        "octogen/table_type": info.table_type,
        "octogen/location": info.location,
        CONSOLE: console_url(*name),
        **_modification(last_modified),
        **cost,
    }
    return rows, last_modified, metadata


def build_count(table: TableName, modified_column: str | None) -> str:
    """Return a query for a table's row count and the newest value in a column."""
    newest = f"MAX(`{modified_column}`)" if modified_column else "NULL"
    # The table's name is checked, and the column's name comes from BigQuery.
    return (
        f"SELECT COUNT(*) AS row_count, CAST({newest} AS TIMESTAMP) AS last_modified "  # noqa: S608
        f"FROM `{table}`"
    )


def _modification(last_modified: datetime | None) -> Metadata:
    if last_modified is None:
        return {}
    return {
        "octogen/last_modified": dg.MetadataValue.timestamp(last_modified),
        "octogen/age_hours": hours(age_of(last_modified)),
    }
