"""The load of a snapshot into a table: once, whole or not at all."""

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
    """The rows of a snapshot that is stored."""

    snapshot_id: str
    row_count: int
    batches: Callable[[Callable[[pl.LazyFrame], pl.LazyFrame]], Iterator[pl.DataFrame]]


class Loaded(NamedTuple):
    """The result of a load.

    Attributes:
        row_count: The rows of the part that the table has now.
        is_new: False if the table had them before, and nothing was sent.
        texts_with_nul: The number of texts that NUL was removed from.
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
    """Put the rows of a snapshot into a table, in place of those of the same part.

    Two loads of a part at the same time come one after the other. Nothing is sent if the last load
    of the part was of this snapshot and the table still has as many rows.
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
            f"The table {name} has no column {min(missing)!r}: it was made for an asset without "
            "such partitions. Nothing was changed. Rename or drop the table, or load into another."
        )
    prepared = PreparedFrames(cast_columns(sources, there, name), name)
    table = table._replace(columns=prepared.columns)
    note = Load(_load_of(stored.snapshot_id, table), stored.row_count, run_id)

    def frames() -> Iterator[pl.DataFrame]:
        for frame in prepared.of(stored.batches(prepared.select)):
            if stop.is_set():
                raise OctogenTableError("The run is stopped.")
            yield frame
        if prepared.rows != stored.row_count:
            raise OctogenTableError(
                f"{prepared.rows:,} of {stored.row_count:,} rows of the snapshot were read for the "
                f"table {name}. Nothing was changed; run it again."
            )

    # The note alone says little: somebody may have changed the table by hand.
    if connection.holds(table, rows, note):
        counted = connection.count(table, rows)
        if counted == stored.row_count:
            return Loaded(counted, is_new=False)
    connection.replace(table, rows, frames(), note)
    return Loaded(connection.count(table, rows), True, prepared.texts_with_nul)


def _load_of(snapshot_id: str, table: Table) -> str:
    """The id of a snapshot with these of its columns."""
    # A table that is to have further columns gets the same snapshot again.
    columns = [f"{column.name} {column.type.name}" for column in table.columns]
    digest = hashlib.blake2b("\n".join(columns).encode(), digest_size=4).hexdigest()
    return f"{snapshot_id}-{digest}"
