"""A linked view as a source of snapshots: its SELECT, and the rows of the result as a frame."""

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
    "Octogen exported the catalog only in part or under another name, a URL list lost addresses, "
    "the linked dataset was replaced, or its rows are filtered for these credentials"
)


def check_arguments(
    columns: Sequence[str] | None, where: str | None, modified_column: str | None
) -> None:
    """Check what can be checked without the view."""
    if columns is not None:
        names = [] if isinstance(columns, str) else [name.casefold() for name in columns]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                "columns must be a list of one or more different names of columns, or None for "
                f"all, not {columns!r}."
            )
        if modified_column is not None and modified_column.casefold() not in names:
            raise ValueError(
                f"modified_column {modified_column!r} is not among columns, so it would not be "
                "read: add it to them."
            )
    if where is not None and not where.strip():
        raise ValueError(
            f"where must be an expression in SQL, or None for all rows, not {where!r}."
        )


def build_select(
    table: TableName,
    schema: Sequence[SchemaField],
    columns: Sequence[str] | None,
    where: str | None,
) -> str:
    """The SELECT of columns, which may be named in any case, and rows of a view."""
    fields = {field.name.casefold(): field for field in schema}
    if missing := [name for name in columns or () if name.casefold() not in fields]:
        raise OctogenBigQueryInputError(
            f"Table {table}: it has no column {missing[0]!r}. Its columns: "
            f"{', '.join(field.name for field in schema)}. Correct columns."
        )
    chosen = schema if columns is None else [fields[name.casefold()] for name in columns]
    if unsupported := [found for field in chosen for found in _unsupported(field)]:
        path, kind = unsupported[0]
        held = [field.name for field in chosen if not _unsupported(field)]
        raise OctogenBigQueryInputError(
            f"Table {table}: column {path!r} is {kind}, which Polars cannot hold. Nothing was "
            f"read. Name the columns without it: columns={held}."
        )
    names = "*" if columns is None else ", ".join(f"`{field.name}`" for field in chosen)
    sql = f"SELECT {names}\nFROM `{table}`"
    if where is not None:
        sql += f"\nWHERE (\n{where}\n)"  # a comment at its end does not reach the parenthesis
    return sql


class LinkedScan:
    """The rows of a query's result as a source of a snapshot, read when its frame is executed.

    `last_modified` is the newest value of the column `dated_by` that the last execution read.
    `selection` says which rows of catalogs the result has; None if it has all.
    """

    spending = None

    def __init__(
        self,
        rows: QueryRows,
        table: TableName,
        min_rows_percent: float,
        dated_by: str | None,
        selection: str | None = None,
    ) -> None:
        self.last_modified: datetime | None = None
        self._limits = Limits(min_rows_percent=min_rows_percent, shrinking_causes=_SHRINKING_CAUSES)
        self._rows = rows
        self._table = table
        self._dated_by = dated_by
        self._selection = selection
        self._read = 0
        self._schema = _arrow_schema(rows.schema)

    @contextmanager
    def reading(self, target: SnapshotTarget, stop: threading.Event) -> Iterator[Reading]:
        """Let the block store the rows of the result."""
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
                    self._note_modification(frame)
                    yield frame
                    if self._read == query.n_rows or self._read > self._rows.total:
                        return  # more rows than there are may have no end
        except OctogenBigQueryError as error:
            error.persistence = Persistence.UNCLEAR  # a retried run has its query run again
            raise

    def _note_modification(self, frame: pl.DataFrame) -> None:
        if self._dated_by not in frame.columns:
            return
        column = frame[self._dated_by]
        if column.dtype.is_temporal():  # the view may have changed since its columns were read
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
"""The types that Polars can hold.

BIGNUMERIC has more digits, INTERVAL has no type there, and RANGE comes in two forms.
"""


def _unsupported(field: SchemaField, parent: str = "") -> list[tuple[str, str]]:
    """The paths, as `size.weight`, and types of what Polars cannot hold of a column."""
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

    # The field metadata of Google would become types of their own in Polars.
    return pa.Table.from_batches([batch]).cast(schema)


def _to_polars(table: pa.Table) -> pl.DataFrame:
    return cast("pl.DataFrame", pl.from_arrow(table))
