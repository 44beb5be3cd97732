"""Reads the facts and the first rows of a BigQuery table. Knows no Dagster."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import polars as pl
from typing_extensions import Self

from octogen_dagster.bigquery.query_jobs import (
    REQUEST_TIMEOUT,
    FinishedQuery,
    JobOrigin,
    QueryLimits,
    run_query,
)
from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryInputError
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from google.cloud.bigquery import Client, SchemaField

EXPORTED_AT = "exported_at"
"""The column of a view whose newest value is the last modification, if the view has it."""

PREVIEW_COLUMNS = 8

_NAME = re.compile(
    r"(?:(?P<project>[A-Za-z0-9.:-]+)\.)?(?P<dataset_id>[A-Za-z0-9_]{1,1024})\."
    r"(?P<table_id>[\w-]{1,1024})"
)
_STANDARD = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
_DATED = {"TIMESTAMP", "DATETIME", "DATE"}
_NOT_IN_POLARS = {"BIGNUMERIC", "BIGDECIMAL", "INTERVAL"}


@dataclass(frozen=True, slots=True)
class TableName:
    """The parsed name of a table or view."""

    project: str
    dataset_id: str
    table_id: str

    @classmethod
    def parse(cls, name: str, default_project: str | None = None) -> Self:
        """Parse `project.dataset.table`, or `dataset.table` in a default project.

        Args:
            name: The name, without backticks.
            default_project: The project of a name that has none.

        Raises:
            OctogenBigQueryInputError: The text is not the name of a table.
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
        """The name of the dataset with its project."""
        return f"{self.project}.{self.dataset_id}"

    @property
    def quoted(self) -> str:
        """The name in SQL, in backticks."""
        return f"`{self}`"


@dataclass(frozen=True, slots=True)
class TableFacts:
    """The facts of a table or view.

    Attributes:
        kind: `TABLE`, `VIEW` or another type of BigQuery.
        location: The location of its dataset.
        rows: The number of rows.
        last_modified: When the rows last changed; None if it is not known.
        schema: The columns.
        query: The query that counted the rows; None if none was needed.
    """

    kind: str
    location: str
    rows: int
    last_modified: datetime | None
    schema: tuple[SchemaField, ...]
    query: FinishedQuery | None = None


@contextlib.contextmanager
def open_client(bigquery: Any) -> Iterator[Client]:
    """Open a client of BigQuery, and close it in the end.

    Args:
        bigquery: A `dagster_gcp.BigQueryResource`. Its type is not imported: that takes seconds.

    Raises:
        OctogenBigQueryError: The Google credentials are missing or cannot be used.
    """
    from google.auth.exceptions import GoogleAuthError

    with translate_google_errors(BIGQUERY, "BigQuery"), contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(bigquery.get_client())
        except GoogleAuthError:
            raise
        except ValueError:  # of base64 or JSON, and its text does not say so
            raise OctogenBigQueryInputError(
                "gcp_credentials of the BigQuery resource are not a Google key file in base64: set "
                "them to the output of `base64 -w0 key.json`."
            ) from None
        yield stack.enter_context(contextlib.closing(client))


def read_table(
    client: Client,
    name: TableName,
    modified_column: str | None = None,
    *,
    origin: JobOrigin,
    limits: QueryLimits,
    timeout: float = REQUEST_TIMEOUT,
) -> TableFacts:
    """Read the facts of a table or view.

    The metadata of a table has them all. The rows of a view, and of a table whose metadata has no
    number of rows, are counted by a query. For a view, BigQuery only knows when its definition
    changed, so the newest value of a column is taken for the last modification.

    Args:
        client: BigQuery.
        name: The table or view.
        modified_column: The column whose newest value is the last modification; by default
            `exported_at`, if what is counted has it.
        origin: The run that the query belongs to.
        limits: The limits of the query.
        timeout: Seconds for one attempt of a request.

    Raises:
        OctogenBigQueryUnavailableError: BigQuery did not answer in time.
        OctogenBigQueryError: The table cannot be read, has no such column, or is too large to be
            counted within the limits.
    """
    subject = f"Table {name}"
    with translate_google_errors(BIGQUERY, subject):
        table = client.get_table(str(name), timeout=timeout)
    known = table.table_type == "TABLE" and table.num_rows is not None
    default = None if known else EXPORTED_AT
    column = find_modified_column(table.schema, name, modified_column, default)
    rows, query = table.num_rows, None
    last_modified = table.modified if table.table_type == "TABLE" else None
    if column or not known:
        newest = f"MAX(`{column}`)" if column else "NULL"
        # The table's name is checked, and the column's name comes from BigQuery.
        sql = (
            f"SELECT COUNT(*) AS row_count, CAST({newest} AS TIMESTAMP) AS last_modified "  # noqa: S608
            f"FROM {name.quoted}"
        )
        query = run_query(
            client,
            sql,
            subject=f"{subject}, whose rows are counted",
            origin=origin,
            limits=limits,
            location=table.location,
            timeout=timeout,
        )
        with translate_google_errors(BIGQUERY, subject):
            ((rows, newest_value),) = query.job.result(timeout=timeout)
        last_modified = newest_value if column else last_modified
    return TableFacts(
        kind=table.table_type,
        location=table.location,
        rows=rows,
        last_modified=last_modified,
        schema=tuple(table.schema),
        query=query,
    )


def find_modified_column(
    schema: Sequence[SchemaField], name: TableName, wanted: str | None, default: str | None
) -> str | None:
    """The name of the column that dates the rows, as BigQuery spells it; None if there is none.

    Raises:
        OctogenBigQueryError: The wanted column is not there, or has no dates.
    """
    dated: dict[str, str] = {
        field.name.casefold(): field.name
        for field in schema
        if field.field_type in _DATED and field.mode != "REPEATED"
    }
    if wanted is None:
        return dated.get(default) if default else None
    if wanted.casefold() not in dated:
        raise OctogenBigQueryError(
            f"Table {name}: it has no column {wanted!r} with dates, to tell its last modification "
            f"by. Those with dates: {', '.join(dated.values()) or 'none'}. Correct "
            "modified_column."
        )
    return dated[wanted.casefold()]


def read_first_rows(
    client: Client,
    name: TableName,
    schema: tuple[SchemaField, ...],
    count: int,
    *,
    timeout: float = REQUEST_TIMEOUT,
) -> pl.DataFrame:
    """Read the first rows of a table through Arrow, without a query.

    Args:
        client: BigQuery.
        name: The table; not a view.
        schema: Its columns. The first eight of those that Polars has a type for are read.
        count: The maximum number of rows.
        timeout: Seconds for one attempt of a request.

    Raises:
        OctogenBigQueryError: The table cannot be read.
    """
    fields = [field for field in schema if _in_polars(field)][:PREVIEW_COLUMNS]
    if not fields:
        return pl.DataFrame()
    with translate_google_errors(BIGQUERY, f"Table {name}"):
        rows = client.list_rows(
            str(name), selected_fields=fields, max_results=count, timeout=timeout
        )
        # The Storage API needs another library, and is slower for a handful of rows.
        return cast("pl.DataFrame", pl.from_arrow(rows.to_arrow(create_bqstorage_client=False)))


def column_type(field: SchemaField) -> str:
    """The type of a column in BigQuery's SQL, as `ARRAY<STRUCT<sku STRING>>`."""
    kind = _STANDARD.get(field.field_type, field.field_type)
    if field.fields:
        kind += f"<{', '.join(f'{each.name} {column_type(each)}' for each in field.fields)}>"
    return f"ARRAY<{kind}>" if field.mode == "REPEATED" else kind


def _in_polars(field: SchemaField) -> bool:
    return field.field_type not in _NOT_IN_POLARS and all(map(_in_polars, field.fields))
