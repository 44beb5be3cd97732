"""Tables in BigQuery: what is known of one, and queries that write one. Knows no Dagster."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import polars as pl
from typing_extensions import Self

from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryInputError
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from google.cloud.bigquery import Client, SchemaField, Table

EXPORTED_AT = "exported_at"
"""The column that tells the age of the rows of a view, where there is one."""

PREVIEW_COLUMNS = 8

_NAME = re.compile(
    r"(?:(?P<project>[A-Za-z0-9.:-]+)\.)?(?P<dataset_id>[A-Za-z0-9_]{1,1024})\."
    r"(?P<table_id>[\w-]{1,1024})"
)
_STANDARD = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
_DATED = {"TIMESTAMP", "DATETIME", "DATE"}
_NOT_IN_POLARS = {"BIGNUMERIC", "BIGDECIMAL", "INTERVAL"}
_TIMEOUT = 60.0
"""Seconds for one try of a request. How long a query may run is not bounded."""


@dataclass(frozen=True, slots=True)
class TableName:
    """The name of a table or view, in its parts."""

    project: str
    dataset_id: str
    table_id: str

    @classmethod
    def parse(cls, name: str, default_project: str | None = None) -> Self:
        """The parts of `project.dataset.table`, or of `dataset.table` in a default project.

        Raises:
            OctogenBigQueryInputError: It is not the name of a table.
        """
        found = _NAME.fullmatch(name.strip())
        project = found and (found["project"] or default_project)
        if found is None or not project:
            raise OctogenBigQueryInputError(
                f"{name[:300]!r} is not the name of a table: it has the form "
                f"{'' if default_project else '<project>.'}<dataset>.<table>, without backticks."
            )
        return cls(project, found["dataset_id"], found["table_id"])

    def __str__(self) -> str:
        return f"{self.dataset}.{self.table_id}"

    @property
    def dataset(self) -> str:
        """The full name of its dataset."""
        return f"{self.project}.{self.dataset_id}"

    @property
    def quoted(self) -> str:
        """As it stands in SQL."""
        return f"`{self}`"


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What is known of a table or view.

    Attributes:
        kind: `TABLE`, `VIEW` or another type of BigQuery's.
        location: Where its dataset is.
        rows: How many there are.
        last_modified: When the rows last changed; None where BigQuery cannot tell.
        schema: The columns.
    """

    kind: str
    location: str
    rows: int
    last_modified: datetime | None
    schema: tuple[SchemaField, ...]


@dataclass(frozen=True, slots=True)
class WrittenQuery:
    """How a query went.

    Attributes:
        job_id: The id of the job that wrote the table.
        location: Where it ran.
        estimated_bytes: Bytes to be read, by a dry run before it.
        billed_bytes: Bytes that BigQuery bills.
        seconds: From its start to its end.
    """

    job_id: str
    location: str
    estimated_bytes: int
    billed_bytes: int
    seconds: float


def read_table(client: Client, name: TableName, modified_column: str | None = None) -> TableFacts:
    """What is known of a table or view.

    A table's metadata says it all. The rows of a view are counted by a query, and the last
    modification that BigQuery knows of it is that of its definition: the newest value of a column
    says when its rows changed.

    Args:
        client: BigQuery.
        name: The table or view.
        modified_column: The column whose newest value is the last modification; by default
            `exported_at`, where a view has it.

    Raises:
        OctogenBigQueryError: It cannot be read, or has no such column.
    """
    with translate_google_errors(BIGQUERY, f"Table {name}"):
        table = client.get_table(str(name), timeout=_TIMEOUT)
        column = _modified_column(table, name, modified_column)
        if table.table_type == "TABLE" and column is None:
            rows, last_modified = table.num_rows, table.modified
        else:
            newest = f"MAX(`{column}`)" if column else "NULL"
            # The names are checked, and those of columns come from BigQuery.
            sql = (
                f"SELECT COUNT(*) AS row_count, CAST({newest} AS TIMESTAMP) AS last_modified "  # noqa: S608
                f"FROM {name.quoted}"
            )
            ((rows, last_modified),) = client.query(
                sql, location=table.location, timeout=_TIMEOUT
            ).result()
    return TableFacts(
        kind=table.table_type,
        location=table.location,
        rows=rows,
        last_modified=last_modified,
        schema=tuple(table.schema),
    )


def write_query(
    client: Client, sql: str, destination: TableName, labels: Mapping[str, str]
) -> WrittenQuery:
    """Run a query in BigQuery and write its result to a table, in place of what is there.

    A query that fails leaves the table as it was.

    Args:
        client: BigQuery.
        sql: One SELECT.
        destination: The table; its dataset is there already.
        labels: Labels of the job.

    Raises:
        OctogenBigQueryError: The dataset cannot be written to, or the query is wrong or failed.
    """
    from google.cloud.bigquery import QueryJobConfig, WriteDisposition

    with translate_google_errors(BIGQUERY, f"Dataset {destination.dataset}"):
        dataset = client.get_dataset(destination.dataset, timeout=_TIMEOUT)
    if dataset.to_api_repr().get("type") == "LINKED":
        raise OctogenBigQueryError(
            f"Table {destination}: {destination.dataset} is a linked dataset, which is read-only. "
            "Write to a dataset of your own in the same location."
        )
    location = dataset.location
    with translate_google_errors(BIGQUERY, f"The query into {destination}, in location {location}"):
        plan = client.query(
            sql,
            job_config=QueryJobConfig(dry_run=True, use_query_cache=False),
            location=location,
            timeout=_TIMEOUT,
        )
        if plan.statement_type != "SELECT":
            raise OctogenBigQueryError(
                f"The query into {destination} is {plan.statement_type}, and only one SELECT can "
                "be written to a table. Leave out CREATE, INSERT, DECLARE and further statements."
            )
        job = client.query(
            sql,
            job_config=QueryJobConfig(
                destination=str(destination),
                write_disposition=WriteDisposition.WRITE_TRUNCATE,
                labels=dict(labels),
            ),
            location=location,
            timeout=_TIMEOUT,
        )
        try:
            job.result()
        except BaseException as stopped:
            if not isinstance(stopped, Exception):  # a run that is terminated
                job.cancel()
            raise
    return WrittenQuery(
        job_id=job.job_id,
        location=job.location,
        estimated_bytes=plan.total_bytes_processed or 0,
        billed_bytes=job.total_bytes_billed or 0,
        seconds=(job.ended - job.started).total_seconds(),
    )


def first_rows(
    client: Client, name: TableName, schema: tuple[SchemaField, ...], count: int
) -> pl.DataFrame:
    """The first rows of a table, through Arrow; nothing is queried.

    Args:
        client: BigQuery.
        name: The table; not a view.
        schema: Its columns. The first eight of those that Polars has a type for are read.
        count: How many rows at most.

    Raises:
        OctogenBigQueryError: It cannot be read.
    """
    fields = [field for field in schema if _in_polars(field)][:PREVIEW_COLUMNS]
    if not fields:
        return pl.DataFrame()
    with translate_google_errors(BIGQUERY, f"Table {name}"):
        rows = client.list_rows(
            str(name), selected_fields=fields, max_results=count, timeout=_TIMEOUT
        )
        # Over REST: the Storage API is another library, and slower for a handful of rows.
        return cast("pl.DataFrame", pl.from_arrow(rows.to_arrow(create_bqstorage_client=False)))


def column_type(field: SchemaField) -> str:
    """The type of a column as BigQuery's SQL writes it: `ARRAY<STRUCT<sku STRING>>`."""
    kind = _STANDARD.get(field.field_type, field.field_type)
    if field.fields:
        kind += f"<{', '.join(f'{each.name} {column_type(each)}' for each in field.fields)}>"
    return f"ARRAY<{kind}>" if field.mode == "REPEATED" else kind


def _modified_column(table: Table, name: TableName, wanted: str | None) -> str | None:
    """The column to read the last modification from, as BigQuery spells it."""
    dated: dict[str, str] = {
        field.name.casefold(): field.name
        for field in table.schema
        if field.field_type in _DATED and field.mode != "REPEATED"
    }
    if wanted is None:
        return None if table.table_type == "TABLE" else dated.get(EXPORTED_AT)
    if wanted.casefold() not in dated:
        raise OctogenBigQueryError(
            f"Table {name}: it has no column {wanted!r} with dates, to tell its last modification "
            f"by. Those with dates: {', '.join(dated.values()) or 'none'}. Correct "
            "modified_column."
        )
    return dated[wanted.casefold()]


def _in_polars(field: SchemaField) -> bool:
    return field.field_type not in _NOT_IN_POLARS and all(map(_in_polars, field.fields))
