"""Loads a snapshot into a table exactly once and atomically."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from octogen_dagster.errors import OctogenTableError
from octogen_dagster.tables.columns import PreparedFrames, SourceColumn, cast_columns
from octogen_dagster.tables.destination import (
    Load,
    Rows,
    Table,
    TableConflictError,
    TableConnection,
)

if TYPE_CHECKING:
    import threading

_ATTEMPTS = 8
_MAX_WAIT_SECONDS = 2.0


class StoredRows(NamedTuple):
    """The rows of a stored snapshot."""

    snapshot_id: str
    row_count: int
    batches: Callable[[Callable[[pl.LazyFrame], pl.LazyFrame]], Iterator[pl.DataFrame]]


class Loaded(NamedTuple):
    """The result of a load.

    Attributes:
        row_count: Number of the partition's rows in the table after the load.
        is_new: False if the table already contained these rows, so no rows were sent.
        texts_with_nul: Number of text values from which NUL characters were removed.
    """

    row_count: int
    is_new: bool
    texts_with_nul: int = 0


def load(
    connection: TableConnection,
    table: Table,
    rows: Rows,
    stored: StoredRows,
    *,
    sources: Sequence[SourceColumn],
    run_id: str,
    stop: threading.Event,
) -> Loaded:
    """Replace a partition's rows in a table with the rows of a snapshot.

    Concurrent loads into the same partition run one after another. If the latest load record
    matches the snapshot and the row count is still the same, no rows are sent.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _load(connection, table, rows, stored, sources=sources, run_id=run_id, stop=stop)
        except TableConflictError:
            if attempt == _ATTEMPTS:
                raise
        stop.wait(random.uniform(0, _MAX_WAIT_SECONDS))  # noqa: S311
    raise AssertionError


def _load(
    connection: TableConnection,
    table: Table,
    rows: Rows,
    stored: StoredRows,
    *,
    sources: Sequence[SourceColumn],
    run_id: str,
    stop: threading.Event,
) -> Loaded:
    name = f"{table.schema}.{table.name}"
    there = connection.columns(table)
    if there and (missing := rows.keys() - there.keys()):
        raise OctogenTableError(
            f"Table {name} has no column {min(missing)!r}, because the table was created for an "
            "asset with different partitions. The table was not changed. Drop it, or set `table` "
            "to another name."
        )
    prepared = PreparedFrames(cast_columns(sources, there, name), name)
    table = table._replace(columns=prepared.columns)
    record = Load(_load_of(stored.snapshot_id, table), stored.row_count, run_id)

    def frames() -> Iterator[pl.DataFrame]:
        for frame in prepared.of(stored.batches(prepared.select)):
            if stop.is_set():
                raise OctogenTableError("The run was stopped.")
            yield frame
        if prepared.rows != stored.row_count:
            raise OctogenTableError(
                f"Only {prepared.rows:,} of the snapshot's {stored.row_count:,} rows could be "
                f"read, so table {name} was not changed. Rerun the asset."
            )

    # The record is not enough: the table might have been edited by hand since.
    if connection.holds(table, rows, record):
        counted = connection.count(table, rows)
        if counted == stored.row_count:
            return Loaded(counted, is_new=False)
    connection.replace(table, rows, frames(), record)
    return Loaded(connection.count(table, rows), True, prepared.texts_with_nul)


def _load_of(snapshot_id: str, table: Table) -> str:
    # The id depends on the columns: if `columns` changes, the same snapshot is loaded again.
    columns = [f"{column.name} {column.type.name}" for column in table.columns]
    digest = hashlib.blake2b("\n".join(columns).encode(), digest_size=4).hexdigest()
    return f"{snapshot_id}-{digest}"
