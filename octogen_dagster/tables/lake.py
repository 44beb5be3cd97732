"""LakeConnection: the base class of connections to Delta and Iceberg tables."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from octogen_dagster.errors import OctogenTableError, Persistence
from octogen_dagster.masking import masked
from octogen_dagster.tables.destination import (
    ColumnType,
    Load,
    Rows,
    Table,
    TableConflictError,
    TableConnection,
)
from octogen_dagster.tables.sql import part_of

if TYPE_CHECKING:
    import polars as pl

_MAX_REASON = 500


class LakeConnection(TableConnection):
    """A connection to tables that store load records in their commits.

    Rows are first written to files. The commit is then based on the table version that was opened.
    If another run has changed the same rows since, the library rejects the commit.
    """

    has_nested: ClassVar[bool] = True

    def __init__(self, place: str, settings: Mapping[str, Any], secrets: Sequence[str]) -> None:
        self._secrets = secrets
        self.place, self.settings = place, {name: _text(settings[name]) for name in settings}
        self._opened: dict[tuple[str, str], Any] = {}

    @abstractmethod
    def open(self, table: Table) -> Any:
        """Open the latest version of a table, or return None if the table does not exist."""

    @abstractmethod
    def schema(self, opened: Any) -> pl.Schema:
        """Return the columns of an open table."""

    @abstractmethod
    def has_record(self, opened: Any, part: str, load: Load) -> bool:
        """Return True if the latest commit for a partition contains this load record."""

    @abstractmethod
    def count_rows(self, opened: Any, rows: Rows) -> int:
        """Return the number of selected rows in an open table."""

    @abstractmethod
    def write(
        self, table: Table, rows: Rows, frames: Iterator[pl.DataFrame], part: str, load: Load
    ) -> None:
        """Replace the selected rows, and commit a load record with the key `part`."""

    @abstractmethod
    def is_conflict(self, error: Exception) -> bool:
        """Return True if retrying the load immediately can succeed."""

    def columns(self, table: Table) -> Mapping[str, ColumnType | pl.DataType | None]:
        from octogen_dagster.tables.columns import reported_type  # imports Polars

        self._opened.pop((table.schema, table.name), None)
        with self.explained():
            return {name: reported_type(dtype) for name, dtype in self.known(table).items()}

    def holds(self, table: Table, rows: Rows, load: Load) -> bool:
        with self.explained():
            opened = self.opened(table)
            part = part_of(table, rows)["part"]
            return opened is not None and self.has_record(opened, part, load)

    def count(self, table: Table, rows: Rows) -> int:
        with self.explained():
            opened = self.opened(table)
            return 0 if opened is None else self.count_rows(opened, rows)

    def replace(self, table: Table, rows: Rows, frames: Iterable[pl.DataFrame], load: Load) -> None:
        failed = []

        def watched() -> Iterator[pl.DataFrame]:
            try:
                yield from frames
            except OctogenTableError as error:  # the library wraps it
                failed.append(error)
                raise

        for column in table.columns:
            if column.type is ColumnType.TIME:
                raise OctogenTableError(
                    f"Column {column.name!r} has the type Time, which {self.place} does not "
                    "support. Exclude the column with `columns`."
                )
        try:
            with self.explained():
                self.write(table, rows, watched(), part_of(table, rows)["part"], load)
        except OctogenTableError as error:
            raise (failed or [error])[0] from None
        finally:
            self._opened.pop((table.schema, table.name), None)

    def opened(self, table: Table) -> Any:
        """Open a table, or return the table that is already open.

        `columns` and each load discard the open table, so the next call opens the latest version.
        """
        key = table.schema, table.name
        if key not in self._opened:
            self._opened[key] = self.open(table)
        return self._opened[key]

    def known(self, table: Table) -> Mapping[str, pl.DataType]:
        """Return a table's columns, or an empty mapping if the table does not exist."""
        opened = self.opened(table)
        return {} if opened is None else self.schema(opened)

    def conflict(self) -> TableConflictError:
        return TableConflictError(
            f"Another run changed the same rows in {self.place} at the same time."
        )

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Convert library errors to table errors."""
        try:
            yield
        except OctogenTableError:
            raise
        except Exception as error:
            if self.is_conflict(error):
                raise self.conflict() from None
            # Drop tree drawing, query plan and URL signatures.
            text = re.sub(r"\x1b\[\d+m|↳|\?\S*", "", str(error).partition("\n\n")[0])
            reason = ": ".join(line.strip() for line in text.strip().splitlines())
            reason = masked(reason, self._secrets)
            raise OctogenTableError(
                f"{self.place} failed: {reason[:_MAX_REASON].rstrip('.')}. Check the destination's "
                "settings, the table and the run's permissions.",
                Persistence.UNCLEAR,
            ) from None


def partition_columns(rows: Rows) -> list[str]:
    """Return the names of the columns that contain Dagster partition keys."""
    return [name for name, value in rows.items() if isinstance(value, str)]


def _text(value: Any) -> str:
    """Return a setting as a string, with booleans in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value)
