"""The asset of linked products: it describes and checks each linked table where it is."""

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
    """Build an asset of the products of each linked dataset. No product leaves BigQuery.

    It reports the number of rows, the columns and the last modification of the linked table, and
    reads nothing else. Each partition has checks of its own:

    * `not_empty`: there are products;
    * `expected_columns`: the columns are there;
    * `fresh`: the last modification is not older than max_age (a warning).

    If Octogen shares a view, BigQuery does not know when its rows changed. Then the newest value of
    a column is taken for the last modification, and the query of that column counts the rows. The
    same is done for a table whose number of rows BigQuery does not say. The metadata has the cost
    of the query.

    Args:
        linked_datasets: An asset of `build_linked_datasets_asset`, or another one that reports
            `dagster/table_name`. The new asset has the same partitions.
        name: The asset's name or `dagster.AssetSpec`.
        max_age: The maximum age of the last modification; None leaves the check out.
        modified_column: The column whose newest value is the last modification; by default
            BigQuery's own for a table, and `exported_at` for a view that has it.
        columns: The columns to expect.
        max_bytes_billed: The bytes that the query may be billed for; None sets no limit. BigQuery
            does not run a query that would be billed for more.
        bigquery_resource_key: The key of a `dagster_gcp.BigQueryResource`, or of an
            `AnalyticsHubResource`.
        asset_arguments: Any other argument of `@dagster.asset`, such as `group_name`,
            `automation_condition`, `retry_policy`.

    Raises:
        ValueError: max_age or max_bytes_billed is not positive.
        MissingPackageError: The packages of the extra `bigquery` are not installed.
    """
    tables = LinkedTables(
        linked_datasets, columns, max_age, modified_column, max_bytes_billed, bigquery_resource_key
    )

    own, given = tables.asset_arguments("build_linked_products_asset", name, asset_arguments)
    own["description"] = (
        "The number, the columns and the last change of the products in each linked dataset. The "
        "products stay in BigQuery."
    )

    @octogen_asset(own, given)
    def linked_products(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
        with tables.opened(context) as table:
            rows, last_modified, metadata = _describe(context, tables, table)
        context.add_asset_metadata(metadata)
        schema = table.there.schema
        return dg.MaterializeResult(
            check_results=tables.results(table.name, rows, schema, last_modified)
        )

    return linked_products


def _describe(
    context: dg.AssetExecutionContext, tables: LinkedTables, table: OpenTable
) -> tuple[int, datetime | None, Metadata]:
    """Return the number of rows of a table, its last modification, and what is shown of it."""
    name, there = table.name, table.there
    is_table = there.table_type == "TABLE"
    is_counted = is_table and there.num_rows is not None
    column = tables.dated_by(table, None if is_counted else EXPORTED_AT)
    rows = there.num_rows
    last_modified = there.modified if is_table else None
    cost: Metadata = {}
    if column or not is_counted:
        subject = f"Table {name}, whose rows are counted"
        job = tables.query(context, table, build_count(name, column), subject)
        with translate_google_errors(BIGQUERY, f"Table {name}"):
            ((rows, newest),) = job.result(timeout=REQUEST_TIMEOUT)
        last_modified = newest if column else last_modified
        cost = query_metadata(job)
    row_count = "partition_row_count" if context.has_partition_key else "row_count"
    metadata: Metadata = {
        TABLE_NAME: str(name),
        f"dagster/{row_count}": rows,
        "dagster/column_schema": table_schema(there.schema),
        "octogen/table_type": there.table_type,
        "octogen/location": there.location,
        CONSOLE: console_url(*name),
        **_modification(last_modified),
        **cost,
    }
    return rows, last_modified, metadata


def build_count(table: TableName, modified_column: str | None) -> str:
    """The SELECT of the number of rows, and of the newest value of a column."""
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
