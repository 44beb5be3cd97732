"""LinkedScan: a snapshot source that reads the rows of a linked view with a SELECT statement."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, cast

import polars as pl

from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryInputError, Persistence
from octogen_dagster.frames.source import FETCHED_AT, ROWS, SELECTION, Limits, Outcome, Reading
from octogen_dagster.io_source import Query, check, io_source
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors

if TYPE_CHECKING:
    import threading

    import pyarrow as pa
    from google.cloud.bigquery import SchemaField

    from octogen_dagster.bigquery.queries import QueryRows
    from octogen_dagster.bigquery.tables import TableName
    from octogen_dagster.frames.source import Metrics, SnapshotTarget

_SHRINKING_CAUSES = (
    "Octogen exported only part of the catalog or renamed it, a URL list lost URLs, the linked "
    "dataset was replaced, or row-level access policies filter rows for these credentials"
)


def check_arguments(
    columns: Sequence[str] | None, where: str | None, modified_column: str | None
) -> None:
    """Check the arguments without connecting to BigQuery."""
    if columns is not None:
        names = [] if isinstance(columns, str) else [name.casefold() for name in columns]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                "`columns` must be a list of one or more distinct column names, or None for all "
                f"columns; got {columns!r}."
            )
        if modified_column is not None and modified_column.casefold() not in names:
            raise ValueError(
                f"`modified_column` is {modified_column!r}, but `columns` does not contain this "
                "name. Add the name to `columns`."
            )
    if where is not None and not where.strip():
        raise ValueError(f"`where` must be a SQL expression, or None for all rows; got {where!r}.")


def build_select(
    table: TableName,
    schema: Sequence[SchemaField],
    columns: Sequence[str] | None,
    where: str | None,
) -> str:
    """Return the SELECT statement for a view. Column names are not case-sensitive."""
    fields = {field.name.casefold(): field for field in schema}
    if missing := [name for name in columns or () if name.casefold() not in fields]:
        raise OctogenBigQueryInputError(
            f"Table {table} does not have the column {missing[0]!r}. Its columns are "
            f"{', '.join(field.name for field in schema)}. Correct `columns`."
        )
    chosen = schema if columns is None else [fields[name.casefold()] for name in columns]
    if unsupported := [found for field in chosen for found in _unsupported(field)]:
        path, kind = unsupported[0]
        supported = [field.name for field in chosen if not _unsupported(field)]
        raise OctogenBigQueryInputError(
            f"Column {path!r} in table {table} has the type {kind}, which Polars does not support. "
            f"No rows were read. Select the other columns: columns={supported}."
        )
    names = "*" if columns is None else ", ".join(f"`{field.name}`" for field in chosen)
    sql = f"SELECT {names}\nFROM `{table}`"
    if where is not None:
        sql += f"\nWHERE (\n{where}\n)"  # a trailing comment must not hide the parenthesis
    return sql


class LinkedScan:
    """A snapshot source that reads the result rows of a query.

    The rows are read when the LazyFrame is executed. After that, `last_modified` is the newest
    value of `modified_column`. `selection` describes which of the catalog's rows the result
    contains; None means all rows.
    """

    spending = None

    def __init__(
        self,
        rows: QueryRows,
        table: TableName,
        min_rows_percent: float,
        modified_column: str | None,
        selection: str | None = None,
    ) -> None:
        self.last_modified: datetime | None = None
        self._limits = Limits(min_rows_percent=min_rows_percent, shrinking_causes=_SHRINKING_CAUSES)
        self._rows = rows
        self._table = table
        self._modified_column = modified_column
        self._selection = selection
        self._read = 0
        self._schema = _arrow_schema(rows.schema)

    @contextmanager
    def reading(self, target: SnapshotTarget, stop: threading.Event) -> Iterator[Reading]:
        schema = _to_polars(self._schema.empty_table()).schema
        frame = io_source(schema, functools.partial(self._frames, target), stop)
        yield Reading(frame, self._outcome, self._limits)

    def _outcome(self) -> Outcome:
        modified, total = self.last_modified, self._rows.total
        metrics: Metrics = {"read_by": self._rows.read_by}
        file_metadata = {
            "octogen.source_table": str(self._table),
            "octogen.job_id": self._rows.job_id,
            ROWS: str(self._read),
            **({SELECTION: self._selection} if self._selection else {}),
        }
        if modified is not None:
            metrics["last_modified"] = modified
            file_metadata |= dict.fromkeys(
                ("octogen.last_modified", FETCHED_AT), modified.isoformat()
            )
        problem = f"the result of BigQuery's job {self._rows.job_id} has {total:,}"
        return Outcome(
            self._read, None if self._read == total else problem, file_metadata, lambda: metrics
        )

    def _frames(
        self, target: SnapshotTarget, query: Query, stop: threading.Event
    ) -> Iterator[pl.DataFrame]:
        self._read, self.last_modified = 0, None
        try:
            with translate_google_errors(BIGQUERY, f"The rows of {self._table}"):
                for batch in self._rows.batches(functools.partial(check, stop), target.warn):
                    frame = _to_polars(_cast(batch, self._schema))
                    if query.n_rows is not None:
                        frame = frame.head(query.n_rows - self._read)
                    self._read += len(frame)
                    self._update_last_modified(frame)
                    yield frame
                    if self._read == query.n_rows or self._read > self._rows.total:
                        return  # if there are more rows than BigQuery counted, they might never end
        except OctogenBigQueryError as error:
            error.persistence = Persistence.UNCLEAR  # a retried run queries again
            raise

    def _update_last_modified(self, frame: pl.DataFrame) -> None:
        if self._modified_column not in frame.columns:
            return
        column = frame[self._modified_column]
        if column.dtype.is_temporal():  # the view might have changed since its schema was read
            newest = cast("datetime | None", column.cast(pl.Datetime("us", "UTC")).max())
            known = [time for time in (newest, self.last_modified) if time is not None]
            self.last_modified = max(known, default=None)


_STRUCT = {"RECORD", "STRUCT"}
_ARROW_TYPES = {
    "BOOL": "bool",
    "BOOLEAN": "bool",
    "BYTES": "binary",
    "DATE": "date32",
    "DATETIME": "timestamp[us]",
    "FLOAT": "double",
    "FLOAT64": "double",
    "GEOGRAPHY": "string",
    "INT64": "int64",
    "INTEGER": "int64",
    "JSON": "string",
    "NUMERIC": "decimal",
    "STRING": "string",
    "TIME": "time64[us]",
    "TIMESTAMP": "timestamp[us, UTC]",
}
"""The Arrow type for each BigQuery type that Polars supports.

Three types are not supported: BIGNUMERIC has too many digits, Polars has no type for INTERVAL, and
BigQuery's two APIs represent RANGE differently.
"""


def _unsupported(field: SchemaField, parent: str = "") -> list[tuple[str, str]]:
    """Return the path (such as `size.weight`) and the type of each unsupported column."""
    path = f"{parent}{field.name}"
    if field.field_type in _STRUCT:
        return [found for each in field.fields for found in _unsupported(each, f"{path}.")]
    return [] if field.field_type in _ARROW_TYPES else [(path, field.field_type)]


def _arrow_schema(fields: Sequence[SchemaField]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([pa.field(field.name, _arrow_type(field)) for field in fields])


def _arrow_type(field: SchemaField) -> pa.DataType:
    import pyarrow as pa

    if field.field_type in _STRUCT:
        kind = pa.struct([pa.field(each.name, _arrow_type(each)) for each in field.fields])
    else:
        special = {
            "decimal": pa.decimal128(38, 9),
            "timestamp[us, UTC]": pa.timestamp("us", "UTC"),
        }
        name = _ARROW_TYPES[field.field_type]
        kind = special.get(name) or pa.type_for_alias(name)
    return pa.list_(kind) if field.mode == "REPEATED" else kind


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    # Polars would turn Google's field metadata into extension types.
    return pa.Table.from_batches([batch]).cast(schema)


def _to_polars(table: pa.Table) -> pl.DataFrame:
    return cast("pl.DataFrame", pl.from_arrow(table))
