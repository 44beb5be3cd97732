"""A custom destination: tables in a SQLite file."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, ClassVar

import dagster as dg
import polars as pl

from octogen_dagster import build_table_asset
from octogen_dagster.errors import OctogenTableError
from octogen_dagster.tables import (
    Column,
    ColumnType,
    SQLConnection,
    Table,
    TableConflictError,
    TableDestination,
)


class SQLiteTables(TableDestination):
    """Tables in a SQLite file."""

    kind: ClassVar[str] = "sqlite"

    path: str

    @property
    def default_schema(self) -> str:
        return "main"  # SQLite's name for the opened file

    @property
    def place(self) -> str:
        return f"SQLite ({self.path})"

    @property
    def pool(self) -> str:
        return "octogen_sqlite"

    @contextmanager
    def connect(self) -> Iterator["SQLiteConnection"]:
        with closing(
            sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        ) as connection:
            yield SQLiteConnection(self.place, connection)


class SQLiteConnection(SQLConnection):
    types: ClassVar = {
        ColumnType.TEXT: "TEXT",
        ColumnType.INTEGER: "INTEGER",
        ColumnType.FLOAT: "REAL",
        ColumnType.DECIMAL: "DECIMAL TEXT",  # with TEXT, or SQLite would round it to a double
        ColumnType.BOOLEAN: "BOOLEAN",
        ColumnType.DATE: "DATE",
        ColumnType.TIME: "TIME",
        ColumnType.TIMESTAMP: "TIMESTAMP",
        ColumnType.LOCAL_TIMESTAMP: "DATETIME",
        ColumnType.BINARY: "BLOB",
        ColumnType.JSON: "JSON",
    }
    reported: ClassVar = {name.lower(): kind for kind, name in types.items()}
    listing = "SELECT name, type FROM pragma_table_info({1}, {0})"
    staged = "temp.stage"
    has_definitions_in_transactions = True

    def __init__(self, place: str, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._place, self._connection = place, connection

    def execute(self, sql: str) -> None:
        self.query(sql)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with self._translated():
            return self._connection.execute(sql).fetchall()

    def stage(self, table: Table, frames: Iterable[pl.DataFrame]) -> None:
        self.execute("DROP TABLE IF EXISTS temp.stage")
        self.execute(f"CREATE TEMPORARY TABLE stage ({self.names(table.columns)})")
        values = ", ".join("?" for _ in table.columns)
        for frame in frames:
            rows = [[_value(each) for each in row] for row in frame.iter_rows()]
            with self._translated():
                self._connection.executemany(f"INSERT INTO stage VALUES ({values})", rows)

    def cancel(self) -> None:
        self._connection.interrupt()

    def has_schema(self, schema: str) -> bool:
        name = self.literal(schema)
        return bool(self.query(f"SELECT 1 FROM pragma_database_list WHERE name = {name}"))

    def add_column(self, table: Table, column: Column) -> str:
        return super().add_column(table, column).replace(" IF NOT EXISTS", "")

    def comments(self, table: Table, columns: Sequence[Column]) -> list[str]:
        return []  # SQLite has no comments

    def literal(self, value: str | int | datetime) -> str:
        return super().literal(_value(value))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise TableConflictError(f"{self._place} is locked by another run.") from error
            raise OctogenTableError(f"{self._place} failed: {error}") from error


def _value(value: Any) -> Any:
    """Convert a value to a type that SQLite can store."""
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


@dg.asset
def numbers() -> pl.DataFrame:
    return pl.DataFrame({"number": [1, 2, 3], "squares": [[1], [4], [9]]})


table = build_table_asset(numbers, SQLiteTables(path="numbers.sqlite"))
