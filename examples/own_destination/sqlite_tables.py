"""A destination of one's own: tables in a file of SQLite."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, ClassVar

import dagster as dg
import polars as pl

from octogen_dagster import build_table_asset
from octogen_dagster.tables.destination import Column, ColumnType, Table, TableDestination
from octogen_dagster.tables.sql import SQLConnection


class SQLiteConnection(SQLConnection):
    types: ClassVar = dict.fromkeys(ColumnType, "TEXT") | {
        ColumnType.INTEGER: "INTEGER",
        ColumnType.BOOLEAN: "BOOLEAN",
        ColumnType.FLOAT: "REAL",
    }
    reported: ClassVar = {
        "integer": ColumnType.INTEGER,
        "boolean": ColumnType.BOOLEAN,
        "real": ColumnType.FLOAT,
    }
    staged = "temp.stage"

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._connection = connection

    def execute(self, sql: str) -> None:
        self._connection.execute(sql)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql).fetchall()

    def columns(self, table: Table) -> dict[str, ColumnType | None]:
        found = self.query(f"PRAGMA table_info({self.name(table)})")
        kinds = {column.name: column.type for column in table.columns}
        columns = {
            name: self.reported.get(kind.lower(), kinds.get(name)) for _, name, kind, *_ in found
        }
        self._known[table.schema, table.name] = columns
        return columns

    def name(self, table: Table) -> str:
        return self.quoted(f"{table.schema}.{table.name}")  # it has no schemas

    def create_schema(self, schema: str) -> None:
        pass

    def comments(self, table: Table, columns: Sequence[Column]) -> list[str]:
        return []

    def stage(self, table: Table, frames: Iterable[pl.DataFrame]) -> None:
        self.execute("DROP TABLE IF EXISTS temp.stage")
        self.execute(f"CREATE TEMPORARY TABLE stage ({self.names(table.columns)})")
        marks = ", ".join("?" for _ in table.columns)
        for frame in frames:
            rows = [
                [str(value) if hasattr(value, "year") else value for value in row]
                for row in frame.rows()
            ]
            insert = f"INSERT INTO temp.stage VALUES ({marks})"  # noqa: S608
            self._connection.executemany(insert, rows)

    def cancel(self) -> None:
        self._connection.interrupt()


class SQLiteTables(TableDestination):
    kind = "sqlite"
    path: str

    @property
    def place(self) -> str:
        return f"SQLite ({self.path})"

    @property
    def pool(self) -> str:
        return "octogen_sqlite"

    @contextmanager
    def connect(self) -> Iterator[SQLiteConnection]:
        with closing(
            sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        ) as connection:
            yield SQLiteConnection(connection)


@dg.asset
def numbers() -> pl.DataFrame:
    return pl.DataFrame({"number": [1, 2, 3], "squares": [[1], [4], [9]]})


table = build_table_asset(numbers, SQLiteTables(path="numbers.sqlite"))
