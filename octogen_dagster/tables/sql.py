"""SQLConnection: the base class of connections to SQL engines."""

from __future__ import annotations

import json
import uuid
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from octogen_dagster.errors import OctogenTableError
from octogen_dagster.tables.destination import (
    Column,
    ColumnType,
    Load,
    Rows,
    Table,
    TableConflictError,
    TableConnection,
)

if TYPE_CHECKING:
    import polars as pl

_LOADS = (
    Column("table_name", ColumnType.TEXT, "Name of the loaded table."),
    Column("part", ColumnType.TEXT, "JSON with the column values that identify the rows."),
    Column(
        "load_id", ColumnType.TEXT, "Id of the load, or an empty string until the first commit."
    ),
    Column("snapshot_id", ColumnType.TEXT, "Id of the loaded snapshot."),
    Column("row_count", ColumnType.INTEGER, "Number of rows."),
    Column("run_id", ColumnType.TEXT, "Id of the Dagster run."),
    Column("loaded_at", ColumnType.TIMESTAMP, "The time at which the load was committed."),
)

_PROBE = Column("probe", ColumnType.INTEGER)


def loads_table(schema: str) -> Table:
    """Return the table that stores the latest load record for each table and partition."""
    description = "One load record for each table and partition. Maintained by octogen-dagster."
    return Table(schema, "_octogen_loads", _LOADS, description=description)


def part_of(table: Table, rows: Rows) -> dict[str, str]:
    """Return a load record's key: the table's name, and the selected rows as JSON."""
    values = {name: value if isinstance(value, int) else str(value) for name, value in rows.items()}
    return {"table_name": table.name, "part": json.dumps(values)}


class SQLConnection(TableConnection):
    """A connection to a SQL engine.

    A subclass executes statements, stages rows and defines the type names. Each transaction begins
    with an UPDATE of the load record. As a result, concurrent loads of the same rows run one after
    another, or one of them fails.

    Attributes:
        types: Type names used in statements.
        reported: Column types by the type name that the engine reports, in lower case.
        escapes: Replacements for special characters in string literals. By default, only quotes are
            escaped, by doubling them.
        listing: Query for the names and types of a table's columns. The placeholders {} are the
            schema and the table.
        in_catalog: Condition that limits `listing` to one catalog.
        staged: The staging table's name in statements.
        json: Expression that parses staged JSON text. The placeholder {} is the text.
        has_definitions_in_transactions: True if DDL statements are transactional.
    """

    types: ClassVar[Mapping[ColumnType, str]]
    reported: ClassVar[Mapping[str, ColumnType]]
    escapes: ClassVar[Mapping[str, str]] = {}
    listing = (
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = {} AND table_name = {}"
    )
    in_catalog = ""
    staged = ""
    json = "{}"
    has_definitions_in_transactions = False

    def __init__(self) -> None:
        self._is_in_transaction = False
        self._known: dict[tuple[str, str], Mapping[str, ColumnType | None]] = {}

    @abstractmethod
    def execute(self, sql: str) -> None:
        """Execute a statement."""

    @abstractmethod
    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows."""

    @abstractmethod
    def stage(self, table: Table, frames: Iterable[pl.DataFrame]) -> None:
        """Write the frames to a staging table, where readers cannot see them.

        An engine can also write the frames later, in `upload` or `insert`. These methods run inside
        the transaction.
        """

    def upload(self, table: Table) -> None:
        """Write the frames to a staging table.

        This method runs inside the transaction, before the transaction takes any locks.
        """

    def insert(self, table: Table, condition: str) -> None:
        """Insert the staged rows if the condition is true."""
        values = [
            self.json.format(self.quoted(column.name))
            if column.type is ColumnType.JSON
            else self.quoted(column.name)
            for column in table.columns
        ]
        self.execute(
            f"INSERT INTO {self.name(table)} ({self.names(table.columns)}) "
            f"SELECT {', '.join(values)} FROM {self.staged} WHERE {condition}"
        )

    def columns(self, table: Table) -> Mapping[str, ColumnType | None]:
        names = self.literal(table.schema), self.literal(table.name)
        found = self.query(f"{self.listing.format(*names)}{self.in_catalog}")
        columns = {str(name): self.reported.get(str(kind).lower()) for name, kind in found}
        self._known[table.schema, table.name] = columns
        return columns

    def count(self, table: Table, rows: Rows) -> int:
        if not self._columns(table):
            return 0
        ((number,),) = self.query(f"SELECT count(*) FROM {self.name(table)}{self._where(rows)}")
        return int(number)

    def holds(self, table: Table, rows: Rows, load: Load) -> bool:
        record: Rows = {
            **part_of(table, rows),
            "snapshot_id": load.snapshot_id,
            "row_count": load.row_count,
        }
        return self.count(loads_table(table.schema), record) > 0

    def replace(self, table: Table, rows: Rows, frames: Iterable[pl.DataFrame], load: Load) -> None:
        load_id, part = uuid.uuid4().hex, part_of(table, rows)
        loads = loads_table(table.schema)
        before = self._load_id(loads, part)
        # On a first load there are no rows to delete, so the table is not read.
        is_first = before is None and not self.count(table, rows)
        self.stage(table, frames)
        record = {**part, "load_id": load_id}
        # A load without DDL holds the definition lock only briefly.
        defines_later = self.has_definitions_in_transactions and not self._is_complete(table)
        if not defines_later:
            self._prepare(table, rows)
        with self.transaction():
            self.upload(table)
            if defines_later:
                self._prepare(table, rows)
            # Only the first load finds the empty load id. If another run was faster, this updates
            # no record, and the conditions below are false.
            self.write_record(table, {**part, "load_id": ""} if is_first else part, load, load_id)
            # An engine can end an idle transaction that blocks another one (Snowflake: after five
            # minutes). The statements after that would be committed individually.
            own_record = f"EXISTS (SELECT 1 FROM {self.name(loads)}{self._where(record)})"
            if not is_first:
                replaced = self._where(rows, always=True)
                self.execute(f"DELETE FROM {self.name(table)}{replaced} AND {own_record}")
            self.insert(table, own_record)
        # A later load can have replaced the record since. If the record is still the one from
        # before, the engine ended the transaction and nothing was committed.
        loaded = self._load_id(loads, part)
        if loaded != load_id and (is_first or loaded == (before or "")):
            raise TableConflictError(
                f"Another run loaded rows into {table.schema}.{table.name} at the same time."
            )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the `with` block in a transaction.

        A nested block becomes part of the outer transaction.
        """
        if self._is_in_transaction:
            yield
            return
        self.execute("BEGIN")
        self._is_in_transaction = True
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            self._known.clear()
            with suppress(OctogenTableError):
                self.execute("ROLLBACK")
            raise
        finally:
            self._is_in_transaction = False

    @contextmanager
    def definition(self) -> Iterator[None]:
        """Protect the DDL statements in the `with` block from concurrent runs."""
        yield

    def try_out(self, schema: str) -> None:
        had_schema = self.has_schema(schema)
        probe = Table(schema, f"_octogen_probe_{uuid.uuid4().hex}", (_PROBE,))
        self.create_schema(schema)
        for statement in self.create_table(probe):
            self.execute(statement)
        self.execute(f"DROP TABLE {self.name(probe)}")
        if not had_schema:
            self.execute(f"DROP SCHEMA {self.schema(schema)}")

    def has_schema(self, schema: str) -> bool:
        """Return True if a schema exists."""
        name = self.literal(schema)
        sql = f"SELECT 1 FROM information_schema.schemata WHERE schema_name = {name}"
        return bool(self.query(sql))

    def create_schema(self, schema: str) -> None:
        """Create a schema if it does not exist."""
        # Check first: a user without the CREATE privilege can still use an existing schema.
        if not self.has_schema(schema):
            self.execute(f"CREATE SCHEMA IF NOT EXISTS {self.schema(schema)}")

    def create_table(self, table: Table) -> list[str]:
        """Return the statements that create a table and its indexes."""
        parts = [self.declaration(column) for column in table.columns]
        if self.has_key(table):
            parts.append(f"PRIMARY KEY ({', '.join(map(self.quoted, table.key))})")
        return [f"CREATE TABLE IF NOT EXISTS {self.name(table)} ({', '.join(parts)})"]

    def add_column(self, table: Table, column: Column) -> str:
        """Return the statement that adds a column to a table."""
        return f"ALTER TABLE {self.name(table)} ADD COLUMN IF NOT EXISTS {self.declaration(column)}"

    def has_key(self, table: Table) -> bool:
        """Return True if the table is created with a primary key."""
        return bool(table.key) and not table.has_null_keys

    def declaration(self, column: Column) -> str:
        """Return a column definition."""
        return f"{self.quoted(column.name)} {self.types[column.type]}"

    def comments(self, table: Table, columns: Sequence[Column]) -> list[str]:
        """Return the statements that add comments to new columns and to a new table."""
        name = self.name(table)
        statements = [
            f"COMMENT ON COLUMN {name}.{self.quoted(column.name)} IS "
            f"{self.literal(column.description)}"
            for column in columns
            if column.description
        ]
        if len(columns) == len(table.columns):
            statements.append(f"COMMENT ON TABLE {name} IS {self.literal(table.description)}")
        return statements

    def name(self, table: Table) -> str:
        """Return a qualified table name."""
        return f"{self.schema(table.schema)}.{self.quoted(table.name)}"

    def schema(self, name: str) -> str:
        """Return a qualified schema name."""
        return self.quoted(name)

    def quoted(self, name: str) -> str:
        """Return a quoted name."""
        return '"' + name.replace('"', '""') + '"'

    def names(self, columns: Iterable[Column]) -> str:
        """Return the quoted column names."""
        return ", ".join(self.quoted(column.name) for column in columns)

    def literal(self, value: str | int | datetime) -> str:
        """Return a SQL literal."""
        if isinstance(value, int):
            return str(value)
        if isinstance(value, datetime):
            return f"CAST('{value.isoformat()}' AS {self.types[ColumnType.TIMESTAMP]})"
        escapes = str.maketrans({"'": "''", **self.escapes})
        return f"'{value.translate(escapes)}'"

    def _where(self, rows: Rows, *, always: bool = False) -> str:
        """Return a WHERE clause for the selected rows.

        Pass `always` for a DELETE statement, because BigQuery requires a WHERE clause there.
        """
        conditions = [
            f"{self.quoted(name)} = {self.literal(value)}" for name, value in rows.items()
        ]
        if not conditions:
            return " WHERE TRUE" if always else ""
        return f" WHERE {' AND '.join(conditions)}"

    def _columns(self, table: Table) -> Mapping[str, ColumnType | None]:
        return self._known.get((table.schema, table.name)) or self.columns(table)

    def _load_id(self, loads: Table, part: Rows) -> str | None:
        """Return the load id in the load record, or None if the record does not exist.

        The load id is empty until the first commit.
        """
        if not self._columns(loads):
            return None
        found = self.query(f"SELECT load_id FROM {self.name(loads)}{self._where(part)}")
        return str(found[0][0]) if found else None

    def _is_complete(self, table: Table) -> bool:
        """Return True if all columns and the load-records table exist, so that no DDL is needed."""
        is_complete = self._columns(table).keys() >= {column.name for column in table.columns}
        return is_complete and bool(self._columns(loads_table(table.schema)))

    def _prepare(self, table: Table, rows: Rows) -> None:
        """Create the table, its columns and an empty load record if necessary."""
        loads, part = loads_table(table.schema), part_of(table, rows)
        is_complete = self._is_complete(table)
        if is_complete and self.count(loads, part):
            return
        with self.definition():
            if not is_complete:
                self._complete(loads)
                self._complete(table)
            # An UPDATE only locks existing rows, so the record is inserted first.
            values = {**part, "load_id": "", "snapshot_id": "", "run_id": ""}
            self.execute(
                f"INSERT INTO {self.name(loads)} ({', '.join(map(self.quoted, values))}) "
                # BigQuery requires FROM with WHERE.
                f"SELECT {', '.join(map(self.literal, values.values()))} FROM (SELECT 1 AS one) "
                f"AS one WHERE NOT EXISTS (SELECT 1 FROM {self.name(loads)}{self._where(part)})"
            )

    def _complete(self, table: Table) -> None:
        known = self.columns(table)
        missing = [column for column in table.columns if column.name not in known]
        statements = []
        if not known:
            self.create_schema(table.schema)
            statements = self.create_table(table)
        elif missing:
            statements = [self.add_column(table, column) for column in missing]
        if missing:
            statements += self.comments(table, missing)
        for statement in statements:
            self.execute(statement)
        if missing:
            self.columns(table)

    def write_record(self, table: Table, part: Rows, load: Load, load_id: str) -> None:
        """Update the load record.

        If another load is replacing the same rows, the statement waits or fails.
        """
        values: Rows = {"load_id": load_id, **load._asdict()}
        changes = [f"{self.quoted(name)} = {self.literal(value)}" for name, value in values.items()]
        changes.append(f"{self.quoted('loaded_at')} = CURRENT_TIMESTAMP")
        loads = self.name(loads_table(table.schema))
        self.execute(f"UPDATE {loads} SET {', '.join(changes)}{self._where(part)}")
