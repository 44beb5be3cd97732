"""SnapshotTable: determines the table for a snapshot and the rows to replace."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import dagster as dg
import polars as pl

from octogen_dagster.errors import OctogenTableError
from octogen_dagster.frames.kinds import TableKind
from octogen_dagster.frames.products import kind_of_rows
from octogen_dagster.frames.source import FETCHED_AT
from octogen_dagster.snapshots.loading import SnapshotFile
from octogen_dagster.tables.columns import SourceColumn, source_columns
from octogen_dagster.tables.destination import Column, ColumnType, Rows, Table

_PARTITION = "The row's Dagster partition."
_FETCHED_AT = "The time at which the row was read (UTC)."
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""The `fetched_at` value for an empty changes snapshot whose metadata has no `fetched_at`."""


class SnapshotTable(NamedTuple):
    """The table that an asset's snapshots are loaded into."""

    schema: str
    table: str
    snapshots: dg.AssetKey
    columns: Sequence[str] | None
    has_times: bool
    kind: TableKind

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"

    def of(
        self,
        file: SnapshotFile,
        partition: str | None,
        partition_column: str,
        *,
        has_nested: bool,
    ) -> tuple[Table, list[SourceColumn], Rows]:
        """Return three values: the table, the source columns, and the rows to replace."""
        schema = file.frame.collect_schema()
        kind = kind_of_rows(self.kind, schema)
        sources = source_columns(schema, kind.descriptions, self.columns, has_nested=has_nested)
        rows: dict[str, str | datetime] = {}
        if partition is not None:
            rows[partition_column] = partition
            sources.append(_constant(partition_column, partition, _PARTITION))
        if kind.accumulates:
            at = self._time_of(file)
            sources.append(_constant("fetched_at", at, _FETCHED_AT))
            rows |= {} if self.has_times else {"fetched_at": at}
        names = [each.column.name for each in sources]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise OctogenTableError(
                f"The table asset adds a column {min(repeated)!r}, but "
                f"{self.snapshots.to_user_string()} already has a column with this name. Exclude "
                "the column with `columns`, or change `partition_column` in the IO manager."
            )
        # With custom columns, a product can appear more than once, for example after a join.
        key = kind.key if schema == kind.schema else ()
        if key and partition is not None:
            key = (*key, partition_column)
        table = Table(
            self.schema,
            self.table,
            tuple(each.column for each in sources),
            key if set(key) <= set(names) else (),
            tuple(rows),
            f"Snapshots from the Dagster asset {self.snapshots.to_user_string()}.",
            kind.key_has_nulls,
        )
        return table, sources, rows

    def _time_of(self, file: SnapshotFile) -> datetime:
        if at := file.metadata.get(FETCHED_AT):
            return datetime.fromisoformat(at)
        if file.row_count:
            raise OctogenTableError(
                f"The metadata of the {self.snapshots.to_user_string()} snapshot does not contain "
                "the time at which it was read. The table was not changed. Rematerialize the "
                "asset."
            )
        return _NEVER


def _constant(name: str, value: str | datetime, description: str) -> SourceColumn:
    dtype: pl.DataType = pl.String() if isinstance(value, str) else pl.Datetime("us", "UTC")
    kind = ColumnType.TEXT if isinstance(value, str) else ColumnType.TIMESTAMP
    repeated: Any = pl.repeat(value, pl.len(), dtype=dtype)
    return SourceColumn(Column(name, kind, description), repeated.alias(name), dtype, None)
