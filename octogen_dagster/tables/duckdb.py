"""DuckDBTables: tables in a DuckDB file or a DuckLake."""

from __future__ import annotations

import re
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg
from pydantic import Field, field_validator

from octogen_dagster.errors import OctogenTableError, Persistence
from octogen_dagster.masking import masked
from octogen_dagster.tables.destination import (
    ColumnType,
    Table,
    TableConflictError,
    TableDestination,
    pool_of,
)
from octogen_dagster.tables.sql import SQLConnection

if TYPE_CHECKING:
    import polars as pl

_LOCK_SECONDS = 60.0
_LOCK_POLL_SECONDS = 0.2
_IS_LOCKED = "Could not set lock on file"
_MEMORY = "64MB"
_SETTINGS = (
    # Rows come from one stream, so more threads only cost memory.
    "SET threads = 1",
    f"SET memory_limit = '{_MEMORY}'",
    "SET preserve_insertion_order = false",
)


_CONFLICT = re.compile("Conflict on|[Tt]ransaction conflict|write-write conflict")
_TOO_LARGE = (
    f"DuckDB can use {_MEMORY} of memory for a load, but 10,000 rows of this table need more. "
    "Use `columns` to exclude columns with large values."
)
_ADVICE = {
    "failed to offload data block": "Free disk space.",
    "OutOfMemoryException": _TOO_LARGE,
    "failed to pin block": _TOO_LARGE,
    "Could not write file": "Free disk space.",
    "IOException": "Check the path, the folder's permissions and the disk space.",
}
"""Advice for errors that contain a text.

The exception's class does not identify the error, because DuckDB raises a TransactionException for
every error in a commit.
"""
_CATALOG = re.compile(r"((?:ducklake:)?(?:\w{2,}:)?)([^?]*)(.*)", re.DOTALL | re.IGNORECASE)
"""Splits `database` into three groups: prefix, path or connection string, and token."""
_PATH = re.compile(r"[^=@]*([/\\]|$)")
"""Matches the beginning of a path. A connection string contains = or @ before the first slash."""


class DuckDBTables(TableDestination):
    """Tables in a DuckDB file or a DuckLake.

    While one process writes to a DuckDB file, no other process can open the file. A run waits up to
    60 seconds for the file. Set the pool limit to 1 so that Dagster queues concurrent runs.
    """

    kind: ClassVar[str] = "duckdb"

    database: str = Field(
        repr=False,
        description="Path to a DuckDB file, or `ducklake:<catalog path>` for a DuckLake.",
    )

    @field_validator("database")
    @classmethod
    def _check_database(cls, database: str) -> str:
        if database in {"", ":memory:"}:
            raise ValueError("an in-memory database is lost when the run ends: set a file path")
        return database

    @property
    def place(self) -> str:
        return f"DuckDB ({_shown(self.database)})"

    @property
    def pool(self) -> str:
        if isinstance(self.database, dg.EnvVar):
            return pool_of(self.kind, self.database)
        return pool_of(
            self.kind, PurePath(_shown(self.database).strip(":…").rpartition(":")[2]).stem
        )

    @property
    def secrets(self) -> list[str]:
        """The whole connection string if it can contain a password, otherwise only the token."""
        kind, name, token = _parts(self.database)
        is_hidden = _shown(self.database) != kind + name
        return [f"{name}{token}" if is_hidden else token]

    def try_out(self) -> None:
        is_new = _shown(self.database) == _parts(self.database)[1] == self.database
        is_new = is_new and not Path(self.database).exists()
        super().try_out()
        if is_new:
            Path(self.database).unlink(missing_ok=True)

    @contextmanager
    def connect(self) -> Iterator[DuckDBConnection]:
        """Open the database. If another process has the file open, wait up to 60 seconds."""
        with closing(DuckDBConnection(self.place, self.database, self.secrets)) as connection:
            yield connection


class DuckDBConnection(SQLConnection):
    """A DuckDB connection that inserts frames directly, without a staging table."""

    types: ClassVar = {
        ColumnType.TEXT: "VARCHAR",
        ColumnType.INTEGER: "BIGINT",
        ColumnType.FLOAT: "DOUBLE",
        ColumnType.DECIMAL: "DECIMAL(38, 9)",
        ColumnType.BOOLEAN: "BOOLEAN",
        ColumnType.DATE: "DATE",
        ColumnType.TIME: "TIME",
        ColumnType.TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
        ColumnType.LOCAL_TIMESTAMP: "TIMESTAMP",
        ColumnType.BINARY: "BLOB",
        ColumnType.JSON: "JSON",
    }
    has_definitions_in_transactions = True
    reported: ClassVar = {
        **{name.lower(): kind for kind, name in types.items()},
        "decimal(38,9)": ColumnType.DECIMAL,
    }

    def __init__(self, place: str, database: str, secrets: Sequence[str]) -> None:
        super().__init__()
        self._place, self._secrets = place, secrets
        self._frames: Iterable[pl.DataFrame] = ()
        self._connection = self._open(database)
        for setting in _SETTINGS:
            self.execute(setting)
        if _parts(database)[0]:  # not a file; for a file, DuckDB uses a folder next to it
            folder = Path(tempfile.gettempdir(), f"octogen-{uuid.uuid4().hex}")
            self.execute(f"SET temp_directory = {self.literal(str(folder))}")
        ((self._catalog,),) = self.query("SELECT current_database()")
        self.in_catalog = f" AND table_catalog = {self.literal(self._catalog)}"

    def _open(self, database: str) -> Any:
        import duckdb

        ends_at = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                with self._explained():
                    return duckdb.connect(database)
            except OctogenTableError as error:
                if _IS_LOCKED not in str(error) or time.monotonic() > ends_at:
                    raise
            time.sleep(_LOCK_POLL_SECONDS)

    def close(self) -> None:
        self._connection.close()

    def execute(self, sql: str) -> None:
        with self._explained():
            self._connection.execute(sql)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with self._explained():
            found: list[tuple[Any, ...]] = self._connection.execute(sql).fetchall()
        return found

    def has_schema(self, schema: str) -> bool:
        name, catalog = self.literal(schema), self.literal(self._catalog)
        sql = "SELECT 1 FROM information_schema.schemata WHERE schema_name"
        return bool(self.query(f"{sql} = {name} AND catalog_name = {catalog}"))

    def schema(self, name: str) -> str:
        # Without the catalog, a schema with the same name as the file is ambiguous.
        return f"{self.quoted(self._catalog)}.{self.quoted(name)}"

    def stage(self, _table: Table, frames: Iterable[pl.DataFrame]) -> None:
        self._frames = frames

    def insert(self, table: Table, condition: str) -> None:
        into = f"INSERT INTO {self.name(table)} ({self.names(table.columns)})"
        for frame in self._frames:
            batch = frame.__arrow_c_stream__()  # DuckDB finds it by variable name
            with self._explained():
                self._connection.execute(f"{into} SELECT * FROM batch WHERE {condition}")
            del batch

    def has_key(self, _table: Table) -> bool:
        return False  # a primary key slows a reload of 100,000 rows from 0.04 s to 0.5-3.4 s

    def cancel(self) -> None:
        self._connection.interrupt()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            reason = masked(str(error).strip().partition("\n")[0], self._secrets)
            raise _error(self._place, type(error).__name__, reason) from None


def _shown(database: str) -> str:
    """Return `database` without the connection string and the token."""
    kind, name, _ = _parts(database)
    is_hidden = {"=", "@"} & set(name) if kind else not _PATH.match(name)
    return f"{kind}…" if is_hidden else kind + name


def _parts(database: str) -> tuple[str, str, str]:
    found = _CATALOG.fullmatch(database)
    assert found
    return found[1], found[2], found[3]


def _error(place: str, kind: str, reason: str) -> OctogenTableError:
    if kind == "TransactionException" and _CONFLICT.search(reason):
        return TableConflictError(f"{place}: conflict with another run: {reason}")
    if _IS_LOCKED in reason:
        return OctogenTableError(
            f"{place} is open in another process: {reason} Close the database there. If the other "
            "process is a run, set the pool limit to 1.",
            Persistence.PASSING,
        )
    known = (text for part, text in _ADVICE.items() if part in f"{kind}: {reason}")
    advice = next(known, "Check the table, its schema and the run's permissions.")
    return OctogenTableError(f"{place} failed: {reason} {advice}", Persistence.UNCLEAR)
