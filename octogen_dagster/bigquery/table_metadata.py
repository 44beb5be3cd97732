"""The name and the facts of a BigQuery table in the metadata of assets."""

from __future__ import annotations

import contextlib
import urllib.parse
from typing import TYPE_CHECKING

import dagster as dg

from octogen_dagster.bigquery.partitions import listing_name
from octogen_dagster.bigquery.tables import TableFacts, TableName, column_type
from octogen_dagster.dagster_parts import Metadata, permanent_errors_fail
from octogen_dagster.errors import OctogenBigQueryInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.cloud.bigquery import SchemaField

TABLE_NAME = "dagster/table_name"
CONSOLE = "octogen/console"


def last_materialization(
    context: dg.AssetExecutionContext, asset: dg.AssetKey
) -> dg.EventLogRecord | None:
    """Read the record of an asset's last materialization of the partition of the run.

    Args:
        context: The context of the run, with the partition.
        asset: The key of the asset.
    """
    return _last_of(context, asset, context.partition_key if context.has_partition_key else None)


def _last_of(
    context: dg.AssetExecutionContext, asset: dg.AssetKey, partition: str | None
) -> dg.EventLogRecord | None:
    found = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset, asset_partitions=None if partition is None else [partition]),
        limit=1,
    )
    return next(iter(found.records), None)


def read_reported_table(context: dg.AssetExecutionContext, upstream: dg.AssetKey) -> TableName:
    """Read the table that an asset's last materialization of the same partition reported.

    Args:
        context: The context of the run, with the partition.
        upstream: The key of the asset that reported the table.

    Raises:
        dagster.Failure: No table was reported, or its name is none.
    """
    record = last_materialization(context, upstream)
    reported = _reported(record)
    if reported is None:
        asset = upstream.to_user_string()
        of = f", partition {context.partition_key!r}" if context.has_partition_key else ""
        raise dg.Failure(
            f"{asset}{of}: no linked dataset is known. Its last materialization says which one it "
            f"is, as {TABLE_NAME}, and there is {'none that does' if record else 'none'}. "
            f"{_namesake(context, upstream) or f'Materialize {asset}{of} first.'}",
            allow_retries=False,
        )
    with permanent_errors_fail():
        return TableName.parse(reported)


def _reported(record: dg.EventLogRecord | None) -> str | None:
    """The table that a materialization reported."""
    if record is None or record.asset_materialization is None:
        return None
    table = record.asset_materialization.metadata.get(TABLE_NAME)
    return None if table is None else str(table.value)


def _namesake(context: dg.AssetExecutionContext, upstream: dg.AssetKey) -> str | None:
    """Name the partition with a table whose listing differs in the project's id or number only."""
    if not context.has_partition_key:
        return None
    for key in sorted(context.instance.get_materialized_partitions(upstream)):
        with contextlib.suppress(OctogenBigQueryInputError):  # a key is that of no listing
            is_same = listing_name(context.partition_key).key == listing_name(key).key
            if is_same and _reported(_last_of(context, upstream, key)):
                return (
                    f"Partition {key!r} has one, and its name differs only in the project's id or "
                    "number: if it is the same listing, use that partition and delete this one."
                )
    return None


def table_metadata(table: TableName, facts: TableFacts, *, partitioned: bool) -> Metadata:
    """The name, row count, columns, type, location and page of a table as metadata.

    Args:
        table: The table.
        facts: The facts that were read of it.
        partitioned: True if the table is that of one partition.
    """
    row_count = "partition_row_count" if partitioned else "row_count"
    return {
        TABLE_NAME: str(table),
        f"dagster/{row_count}": facts.rows,
        "dagster/column_schema": table_schema(facts.schema),
        "octogen/table_type": facts.kind,
        "octogen/location": facts.location,
        CONSOLE: console_url(table.project, table.dataset_id, table.table_id),
    }


def console_url(project: str, dataset: str, table: str | None = None) -> dg.UrlMetadataValue:
    """The page of a dataset or a table in Google's console.

    Args:
        project: The project that has the dataset.
        dataset: The id of the dataset.
        table: The id of the table; None for the dataset.
    """
    place = {"project": project, "p": project, "d": dataset}
    page = {"page": "dataset"} if table is None else {"t": table, "page": "table"}
    query = urllib.parse.urlencode(place | page)
    return dg.MetadataValue.url(f"https://console.cloud.google.com/bigquery?{query}")


def table_schema(fields: Sequence[SchemaField]) -> dg.TableSchema:
    """The columns of a table as metadata, with their types in BigQuery's SQL.

    Args:
        fields: The columns.
    """
    return dg.TableSchema(
        [
            dg.TableColumn(field.name, column_type(field), description=field.description)
            for field in fields
        ]
    )
