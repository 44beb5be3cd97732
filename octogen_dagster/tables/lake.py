"""LakeConnection: what tables of open formats, which are files in a folder or a bucket, share."""

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
    """A connection to tables whose commits note what was loaded.

    Rows are written into files, and a commit puts them into the table as it was when it was opened.
    The library refuses the commit if another one changed the same rows since then.
    """

    has_nested: ClassVar[bool] = True

    def __init__(self, place: str, settings: Mapping[str, Any], secrets: Sequence[str]) -> None:
        self._secrets = secrets
        self.place, self.settings = place, {name: _text(settings[name]) for name in settings}
        self._opened: dict[tuple[str, str], Any] = {}

    @abstractmethod
    def open(self, table: Table) -> Any:
        """Open a table as it is now; None if it is not there."""

    @abstractmethod
    def schema(self, opened: Any) -> pl.Schema:
        """The columns of an open table."""

    @abstractmethod
    def notes(self, opened: Any, part: str, load: Load) -> bool:
        """True if the last commit of a part was this load."""

    @abstractmethod
    def count_rows(self, opened: Any, rows: Rows) -> int:
        """The number of these rows in an open table."""

    @abstractmethod
    def write(
        self, table: Table, rows: Rows, frames: Iterator[pl.DataFrame], part: str, load: Load
    ) -> None:
        """Replace rows, with the text that stands for them in a note."""

    @abstractmethod
    def is_conflict(self, error: Exception) -> bool:
        """True for an error after which the same load may succeed at once."""

    def columns(self, table: Table) -> Mapping[str, ColumnType | pl.DataType | None]:
        from octogen_dagster.tables.columns import reported_type  # it imports Polars

        self._opened.pop((table.schema, table.name), None)
        with self.explained():
            return {name: reported_type(dtype) for name, dtype in self.known(table).items()}

    def holds(self, table: Table, rows: Rows, load: Load) -> bool:
        with self.explained():
            opened = self.opened(table)
            return opened is not None and self.notes(opened, part_of(table, rows)["part"], load)

    def count(self, table: Table, rows: Rows) -> int:
        with self.explained():
            opened = self.opened(table)
            return 0 if opened is None else self.count_rows(opened, rows)

    def replace(self, table: Table, rows: Rows, frames: Iterable[pl.DataFrame], load: Load) -> None:
        failed = []

        def watched() -> Iterator[pl.DataFrame]:
            try:
                yield from frames
            except OctogenTableError as error:  # which the library makes one of its own
                failed.append(error)
                raise

        for column in table.columns:
            if column.type is ColumnType.TIME:
                raise OctogenTableError(
                    f"The column {column.name!r} is a time of day, which {self.place} does not "
                    "have. Leave it out by `columns`."
                )
        try:
            with self.explained():
                self.write(table, rows, watched(), part_of(table, rows)["part"], load)
        except OctogenTableError as error:
            raise (failed or [error])[0] from None
        finally:
            self._opened.pop((table.schema, table.name), None)

    def opened(self, table: Table) -> Any:
        """A table as it was opened first since its columns were looked at, or since a load."""
        key = table.schema, table.name
        if key not in self._opened:
            self._opened[key] = self.open(table)
        return self._opened[key]

    def known(self, table: Table) -> Mapping[str, pl.DataType]:
        """The columns that a table has; none if it is not there."""
        opened = self.opened(table)
        return {} if opened is None else self.schema(opened)

    def conflict(self) -> TableConflictError:
        return TableConflictError(
            f"{self.place}: another run changed the same rows at the same time."
        )

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Say what an error of the library means."""
        try:
            yield
        except OctogenTableError:
            raise
        except Exception as error:
            if self.is_conflict(error):
                raise self.conflict() from None
            # Without the tree that it is drawn as, the plan and the signature of a URL.
            text = re.sub(r"\x1b\[\d+m|↳|\?\S*", "", str(error).partition("\n\n")[0])
            reason = ": ".join(line.strip() for line in text.strip().splitlines())
            reason = masked(reason, self._secrets)
            raise OctogenTableError(
                f"{self.place} failed: {reason[:_MAX_REASON].rstrip('.')}. Look at its settings, "
                "at what the table is, and at the rights of the run.",
                Persistence.UNCLEAR,
            ) from None


def partition_columns(rows: Rows) -> list[str]:
    """The columns by which a table is divided into files: those of Dagster's partitions."""
    return [name for name, value in rows.items() if isinstance(value, str)]


def _text(value: Any) -> str:
    """A setting as a library takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
