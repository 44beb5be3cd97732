"""The name and the facts of a BigQuery table in the metadata of assets."""

import dagster as dg

from octogen_dagster.asset_defaults import Metadata
from octogen_dagster.bigquery.tables import TableFacts, TableName, column_type

TABLE_NAME = "dagster/table_name"


def read_reported_table(context: dg.AssetExecutionContext, upstream: dg.AssetKey) -> TableName:
    """Read the table that an asset's last materialization of the same partition reported.

    Args:
        context: The context of the run, with the partition.
        upstream: The key of the asset that reported the table.

    Raises:
        dagster.Failure: No table was reported.
    """
    partition = context.partition_key if context.has_partition_key else None
    records = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(upstream, asset_partitions=partition and [partition]), limit=1
    ).records
    reported = None
    if records and (materialization := records[0].asset_materialization):
        reported = materialization.metadata.get(TABLE_NAME)
    if reported is None:
        asset = upstream.to_user_string()
        of = "" if partition is None else f", partition {partition!r}"
        raise dg.Failure(
            f"{asset}{of}: no linked dataset is known. Its last materialization says which one it "
            f"is, as {TABLE_NAME}, and there is "
            f"{'none that does' if records else 'none'}. Materialize {asset}{of} first.",
            allow_retries=False,
        )
    return TableName.parse(str(reported.value))


def table_metadata(table: TableName, facts: TableFacts, *, partitioned: bool) -> Metadata:
    """The name, row count, columns, type and location of a table as metadata.

    Args:
        table: The table.
        facts: The facts that were read of it.
        partitioned: True if the table is that of one partition.
    """
    row_count = "partition_row_count" if partitioned else "row_count"
    return {
        TABLE_NAME: str(table),
        f"dagster/{row_count}": facts.rows,
        "dagster/column_schema": dg.TableSchema(
            [
                dg.TableColumn(field.name, column_type(field), description=field.description)
                for field in facts.schema
            ]
        ),
        "octogen/table_type": facts.kind,
        "octogen/location": facts.location,
    }
