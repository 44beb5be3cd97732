"""ADBCConnection: a connection through an Arrow ADBC driver."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar

from octogen_dagster.tables.sql import SQLConnection

if TYPE_CHECKING:
    from octogen_dagster.errors import OctogenTableError


class ADBCConnection(SQLConnection):
    """An ADBC connection. Outside a transaction, each statement is committed automatically."""

    statement_options: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        super().__init__()
        with self._explained():
            self._connection = self.open()
            self._cursor = self._connection.cursor(adbc_stmt_kwargs=self.statement_options)

    @abstractmethod
    def open(self) -> Any:
        """Open the driver connection."""

    @abstractmethod
    def explained(self, error: Any) -> OctogenTableError:
        """Convert a driver error to a table error."""

    def close(self) -> None:
        self._cursor.close()
        self._connection.close()

    def execute(self, sql: str) -> None:
        with self._explained():
            self._cursor.execute(sql)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        import polars as pl

        with self._explained():
            self._cursor.execute(sql)
            return pl.DataFrame(self._cursor.fetch_arrow()).rows()  # fetchall() requires pyarrow

    def ingest(self, table: str, rows: Any, **options: Any) -> None:
        """Insert rows with the driver's bulk load."""
        with self._explained():
            self._cursor.adbc_ingest(table, rows, **options)

    def cancel(self) -> None:
        with suppress(Exception):  # it might have just finished
            self._cursor.adbc_cancel()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from adbc_driver_manager import Error

        try:
            yield
        except Error as error:
            raise self.explained(error) from None
