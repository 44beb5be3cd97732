"""Helpers for BigQuery tables, such as table names, clients and metadata."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import dagster as dg

from octogen_dagster.assets.definition import permanent_errors_fail
from octogen_dagster.bigquery.resources import AnalyticsHubResource
from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors

if TYPE_CHECKING:
    from google.cloud.bigquery import Client, SchemaField

TABLE_NAME = "dagster/table_name"
CONSOLE = "octogen/console"
EXPORT_RESTRICTIONS = "octogen/restricted_export_config"
"""Metadata key for a listing's export restrictions, with the field names in Google's API.

The key is missing if the listing has no restrictions.
"""

EXPORT_TIME = "octogen/exported_at"
"""Metadata key for a linked dataset's export time.

The key is missing if Octogen reports no export time.
"""

EXPORTED_AT = "exported_at"
"""The default `modified_column` for a view.

The newest value in this column is the view's modification time.
"""

_NAME = re.compile(
    r"(?P<project>[A-Za-z0-9.:-]+)\.(?P<dataset_id>[A-Za-z0-9_]{1,1024})\."
    r"(?P<table_id>[\w-]{1,1024})"
)
_STANDARD = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
_DATED = {"TIMESTAMP", "DATETIME", "DATE"}


class TableName(NamedTuple):
    """A parsed table or view name."""

    project: str
    dataset_id: str
    table_id: str

    @classmethod
    def parse(cls, name: str) -> Self:
        found = _NAME.fullmatch(name.strip())
        if found is None:
            raise OctogenBigQueryInputError(
                f"{name[:300]!r} is not a table name. Use the form <project>.<dataset>.<table>, "
                "without backticks."
            )
        return cls(**found.groupdict())

    def __str__(self) -> str:
        return ".".join(self)


@contextlib.contextmanager
def open_client(bigquery: Any) -> Iterator[Client]:
    """Open a resource's BigQuery client and close it afterwards.

    `dagster_gcp` is not imported, because the import takes seconds and the package might not be
    installed. An emulator needs no credentials.
    """
    from google.auth.exceptions import GoogleAuthError

    with translate_google_errors(BIGQUERY, "BigQuery"), contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(_emulated(bigquery) or bigquery.get_client())
        except GoogleAuthError:
            raise
        except ValueError:  # from base64 or JSON, with an unhelpful text
            raise OctogenBigQueryInputError(
                "The BigQuery resource's gcp_credentials is not a base64-encoded Google key file. "
                "Set it to the output of `base64 -w0 key.json`."
            ) from None
        yield stack.enter_context(contextlib.closing(client))


def _emulated(bigquery: Any) -> Client | None:
    """Return a client for the BigQuery emulator, or None to connect to Google."""
    if "BIGQUERY_EMULATOR_HOST" not in os.environ or "GOOGLE_APPLICATION_CREDENTIALS" in os.environ:
        return None
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.bigquery import Client

    kinds: list[type] = [AnalyticsHubResource]
    if google := sys.modules.get("dagster_gcp"):
        kinds.append(google.BigQueryResource)
    if type(bigquery) not in kinds or bigquery.gcp_credentials:
        return None
    credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
    return Client(bigquery.project, credentials, location=getattr(bigquery, "location", None))


def last_materialization(
    context: dg.AssetExecutionContext, asset: dg.AssetKey, partition: str | None = None
) -> dg.EventLogRecord | None:
    """Return an asset's latest materialization for a partition, by default the run's partition."""
    if partition is None and context.has_partition_key:
        partition = context.partition_key
    found = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset, asset_partitions=None if partition is None else [partition]),
        limit=1,
    )
    return next(iter(found.records), None)


class ReportedTable(NamedTuple):
    """A table that an upstream asset reported in its metadata."""

    name: TableName
    export_restrictions: Mapping[str, bool]
    exported_at: float | None


def read_reported_table(context: dg.AssetExecutionContext, upstream: dg.AssetKey) -> ReportedTable:
    """Read the table that the upstream asset reported for the run's partition."""
    record = last_materialization(context, upstream)
    reported = reported_value(record, TABLE_NAME)
    if reported is None:
        asset = upstream.to_user_string()
        part = f" (partition {context.partition_key!r})" if context.has_partition_key else ""
        problem = "it has not been materialized yet"
        if record is not None:
            problem = f"its latest materialization did not report {TABLE_NAME}"
        raise dg.Failure(
            f"The linked dataset of {asset}{part} is unknown, because {problem}. "
            f"{_same_listing(context, upstream) or f'Materialize {asset}{part} first.'}",
            allow_retries=False,
        )
    restrictions = reported_value(record, EXPORT_RESTRICTIONS) or {}
    with permanent_errors_fail():
        name = TableName.parse(str(reported))
    return ReportedTable(name, restrictions, reported_value(record, EXPORT_TIME))


def reported_value(record: dg.EventLogRecord | None, name: str) -> Any:
    """Return a metadata value from a materialization, or None if it is missing."""
    if record is None or record.asset_materialization is None:
        return None
    entry = record.asset_materialization.metadata.get(name)
    return None if entry is None else entry.value


def _same_listing(context: dg.AssetExecutionContext, upstream: dg.AssetKey) -> str | None:
    """Return advice if another partition, possibly for the same listing, has a linked dataset."""
    if not context.has_partition_key:
        return None
    listing = context.partition_key.rsplit(":", 3)[1:]
    for key in sorted(context.instance.get_materialized_partitions(upstream)):
        if key.rsplit(":", 3)[1:] == listing and reported_value(
            last_materialization(context, upstream, key), TABLE_NAME
        ):
            return (
                f"Partition {key!r} already has a linked dataset. The two keys differ only in the "
                "project. If both partitions are for the same listing, delete the partition "
                "without a linked dataset."
            )
    return None


def find_modified_column(
    schema: Sequence[SchemaField], table: TableName, wanted: str | None, default: str | None
) -> str | None:
    """Return the name of the modification time column, or None if there is no such column.

    Column names are not case-sensitive. The name is returned as it is in the schema.
    """
    dated: dict[str, str] = {
        field.name.casefold(): field.name
        for field in schema
        if field.field_type in _DATED and field.mode != "REPEATED"
    }
    if wanted is None:
        return dated.get(default) if default else None
    if wanted.casefold() not in dated:
        raise OctogenBigQueryInputError(
            f"Table {table} does not have a date or time column {wanted!r}. Set modified_column to "
            f"one of these columns: {', '.join(dated.values()) or 'none'}."
        )
    return dated[wanted.casefold()]


def console_url(project: str, dataset: str, table: str | None = None) -> dg.UrlMetadataValue:
    """Return the Google console URL for a dataset or table."""
    place = {"project": project, "p": project, "d": dataset}
    page = {"page": "dataset"} if table is None else {"t": table, "page": "table"}
    query = urllib.parse.urlencode(place | page)
    return dg.MetadataValue.url(f"https://console.cloud.google.com/bigquery?{query}")


def table_schema(fields: Sequence[SchemaField]) -> dg.TableSchema:
    """Return table columns and their BigQuery SQL types as metadata."""
    return dg.TableSchema(
        [
            dg.TableColumn(field.name, _sql_type(field), description=field.description)
            for field in fields
        ]
    )


def _sql_type(field: SchemaField) -> str:
    """Return a column's SQL type, such as `ARRAY<STRUCT<sku STRING>>`."""
    kind = _STANDARD.get(field.field_type, field.field_type)
    if field.fields:
        kind += f"<{', '.join(f'{each.name} {_sql_type(each)}' for each in field.fields)}>"
    return f"ARRAY<{kind}>" if field.mode == "REPEATED" else kind
