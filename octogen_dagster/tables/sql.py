"""SQLConnection: the statements that put rows into a table, which SQL engines share."""

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
    Column("table_name", ColumnType.TEXT, "The table that was loaded."),
    Column("part", ColumnType.TEXT, "The rows that were replaced, by values of columns, as JSON."),
    Column("load_id", ColumnType.TEXT, "The id of the load; empty until the first one ended."),
    Column("snapshot_id", ColumnType.TEXT, "The id of the snapshot that the rows are of."),
    Column("row_count", ColumnType.INTEGER, "The number of rows."),
    Column("run_id", ColumnType.TEXT, "The id of the run of Dagster."),
    Column("loaded_at", ColumnType.TIMESTAMP, "When the load ended."),
)

_PROBE = Column("probe", ColumnType.INTEGER)


def loads_table(schema: str) -> Table:
    """The table that notes the last load of each part of each table of a schema."""
    description = "The last load of each part of a table. octogen-dagster reads and writes it."
    return Table(schema, "_octogen_loads", _LOADS, description=description)


def part_of(table: Table, rows: Rows) -> dict[str, str]:
    """The values by which `loads_table` notes the load of rows."""
    values = {name: value if isinstance(value, int) else str(value) for name, value in rows.items()}
    return {"table_name": table.name, "part": json.dumps(values)}


class SQLConnection(TableConnection):
    """A connection to an engine that speaks SQL.

    An engine says how statements are sent, how rows are staged and how types are named. Its
    transaction begins with an UPDATE of the row that notes the load, which makes two loads of the
    same rows wait for each other, or one of them fail.

    Attributes:
        types: The names of types in statements.
        reported: The names, in lower case, by which the engine reports types of columns.
        escapes: The escapes in a literal besides that of a quote.
        listing: The query of a table's columns with their types, with {} for schema and table.
        in_catalog: The condition on one of several catalogs in the engine's list of columns.
        staged: The table, as in a statement, where rows are aside.
        json: A staged JSON text as a value of the engine, with {} for the text.
        has_definitions_in_transactions: True if a transaction takes back tables and columns too.
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
        """Put rows aside, where no reader of the table sees them.

        An engine whose own transaction holds uncommitted rows may leave them until then.
        """

    def upload(self, table: Table) -> None:
        """Put the rows that were left until the transaction aside, before its first lock."""

    def insert(self, table: Table, condition: str) -> None:
        """Insert the staged rows into the table if a condition holds."""
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
        noted: Rows = {
            **part_of(table, rows),
            "snapshot_id": load.snapshot_id,
            "row_count": load.row_count,
        }
        return self.count(loads_table(table.schema), noted) > 0

    def replace(self, table: Table, rows: Rows, frames: Iterable[pl.DataFrame], load: Load) -> None:
        load_id, part = uuid.uuid4().hex, part_of(table, rows)
        loads = loads_table(table.schema)
        # Where there is nothing to delete, nothing of the table is read.
        is_first = not self.count(loads, part) and not self.count(table, rows)
        self.stage(table, frames)
        noted = {**part, "load_id": load_id}
        # A load that defines nothing takes the lock of definitions for a moment alone.
        defines_later = self.has_definitions_in_transactions and not self._is_complete(table)
        if not defines_later:
            self._prepare(table, rows)
        with self.transaction():
            self.upload(table)
            if defines_later:
                self._prepare(table, rows)
            if is_first:
                # Only the first note of a part finds the empty id. If another load was noted
                # meanwhile, this changes no row, and the condition of the INSERT is false.
                self.note(table, {**part, "load_id": ""}, load, load_id)
                there = f"SELECT 1 FROM {self.name(loads)}{self._where(noted)}"
                self.insert(table, f"EXISTS ({there})")
            else:
                self.note(table, part, load, load_id)
                self.execute(f"DELETE FROM {self.name(table)}{self._where(rows, always=True)}")
                self.insert(table, "TRUE")
        if is_first and not self.count(loads, noted):
            raise TableConflictError(
                f"Another run put rows into {table.schema}.{table.name} at the same time."
            )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what the block executes one transaction, or a part of the one around it."""
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
        """Let the block make schemas and tables, where another run may make the same ones."""
        yield

    def try_out(self, schema: str) -> None:
        was_there = self.has_schema(schema)
        probe = Table(schema, f"_octogen_probe_{uuid.uuid4().hex}", (_PROBE,))
        self.create_schema(schema)
        for statement in self.create_table(probe):
            self.execute(statement)
        self.execute(f"DROP TABLE {self.name(probe)}")
        if not was_there:
            self.execute(f"DROP SCHEMA {self.schema(schema)}")

    def has_schema(self, schema: str) -> bool:
        """True if a schema exists."""
        name = self.literal(schema)
        sql = f"SELECT 1 FROM information_schema.schemata WHERE schema_name = {name}"
        return bool(self.query(sql))

    def create_schema(self, schema: str) -> None:
        """Make a schema where it is not there."""
        # Where it is there, the right to make one may be missing, which is no error then.
        if not self.has_schema(schema):
            self.execute(f"CREATE SCHEMA IF NOT EXISTS {self.schema(schema)}")

    def create_table(self, table: Table) -> list[str]:
        """The statements that make a table and its index."""
        parts = [self.declaration(column) for column in table.columns]
        if self.has_key(table):
            parts.append(f"PRIMARY KEY ({', '.join(map(self.quoted, table.key))})")
        return [f"CREATE TABLE IF NOT EXISTS {self.name(table)} ({', '.join(parts)})"]

    def add_column(self, table: Table, column: Column) -> str:
        """The statement that adds a column to a table."""
        return f"ALTER TABLE {self.name(table)} ADD COLUMN IF NOT EXISTS {self.declaration(column)}"

    def has_key(self, table: Table) -> bool:
        """True if the table gets a primary key."""
        return bool(table.key) and not table.has_null_keys

    def declaration(self, column: Column) -> str:
        """A column in the definition of a table."""
        return f"{self.quoted(column.name)} {self.types[column.type]}"

    def comments(self, table: Table, columns: Sequence[Column]) -> list[str]:
        """The statements that comment on some columns of a table, and on a table that is new."""
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
        """The name of a table in a statement."""
        return f"{self.schema(table.schema)}.{self.quoted(table.name)}"

    def schema(self, name: str) -> str:
        """The name of a schema in a statement."""
        return self.quoted(name)

    def quoted(self, name: str) -> str:
        """A name in a statement."""
        return '"' + name.replace('"', '""') + '"'

    def names(self, columns: Iterable[Column]) -> str:
        """The names of columns in a statement."""
        return ", ".join(self.quoted(column.name) for column in columns)

    def literal(self, value: str | int | datetime) -> str:
        """A value in a statement."""
        if isinstance(value, int):
            return str(value)
        if isinstance(value, datetime):
            return f"CAST('{value.isoformat()}' AS {self.types[ColumnType.TIMESTAMP]})"
        escapes = str.maketrans({"'": "''", **self.escapes})
        return f"'{value.translate(escapes)}'"

    def _where(self, rows: Rows, *, always: bool = False) -> str:
        """The clause that selects rows; `always` there, since BigQuery deletes nothing without."""
        conditions = [
            f"{self.quoted(name)} = {self.literal(value)}" for name, value in rows.items()
        ]
        if not conditions:
            return " WHERE TRUE" if always else ""
        return f" WHERE {' AND '.join(conditions)}"

    def _columns(self, table: Table) -> Mapping[str, ColumnType | None]:
        return self._known.get((table.schema, table.name)) or self.columns(table)

    def _is_complete(self, table: Table) -> bool:
        """True if the table has each column, and the one that notes loads is there."""
        is_complete = self._columns(table).keys() >= {column.name for column in table.columns}
        return is_complete and bool(self._columns(loads_table(table.schema)))

    def _prepare(self, table: Table, rows: Rows) -> None:
        """Make the table, its columns and the row that notes the load, where they are not there."""
        loads, part = loads_table(table.schema), part_of(table, rows)
        is_complete = self._is_complete(table)
        if is_complete and self.count(loads, part):
            return
        with self.definition():
            if not is_complete:
                self._complete(loads)
                self._complete(table)
            # An UPDATE locks a row only if it is there, so it is made before.
            values = {**part, "load_id": "", "snapshot_id": "", "run_id": ""}
            self.execute(
                f"INSERT INTO {self.name(loads)} ({', '.join(map(self.quoted, values))}) "
                # BigQuery takes no WHERE without a FROM.
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

    def note(self, table: Table, part: Rows, load: Load, load_id: str) -> None:
        """Note a load, which waits for another one of the same part or fails."""
        values: Rows = {"load_id": load_id, **load._asdict()}
        changes = [f"{self.quoted(name)} = {self.literal(value)}" for name, value in values.items()]
        changes.append(f"{self.quoted('loaded_at')} = CURRENT_TIMESTAMP")
        loads = self.name(loads_table(table.schema))
        self.execute(f"UPDATE {loads} SET {', '.join(changes)}{self._where(part)}")
