"""PostgresTables: tables in PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import SplitResult, unquote, urlsplit

import dagster as dg
from pydantic import Field

from octogen_dagster.errors import OctogenTableError, Persistence
from octogen_dagster.tables.adbc import ADBCConnection
from octogen_dagster.tables.destination import (
    ColumnType,
    Table,
    TableConflictError,
    TableDestination,
    pool_of,
)

if TYPE_CHECKING:
    import polars as pl

_STAGE = "_octogen_stage"
_LOCK = "octogen-dagster makes tables"
_CONFLICTS = ("40001", "40P01")
"""SQLSTATE of a serialization failure and of a deadlock."""
_PASSING = ("08", "53", "55P03", "57P")
"""What SQLSTATE begins with: no connection, no resources, no lock, a server that stops."""
_ADVICE = {
    "22": "Look at the value in the snapshot, and at the type of the table's column.",
    "23": "Look at the constraints of the table, which the rows of the snapshot do not meet.",
    "28": "Look at the user and the password in its uri.",
    "3D": "Make the database, or name another one in its uri.",
    "42501": "Grant the user CREATE on the database, or make the schema and grant USAGE and CREATE "
    "on it; a table that another user owns needs that user.",
    "42": "Look at what the table or its schema is; rename or drop what is not this asset's.",
}
"""By what SQLSTATE begins with, the longest first."""
_NAME = re.compile(r"[\w.-]+")
_MALFORMED = ("connection option", "connection info", "URI")


class PostgresTables(TableDestination):
    """Tables in PostgreSQL, or in a database that speaks as it does."""

    kind: ClassVar[str] = "postgres"

    uri: str = Field(
        repr=False,
        description="postgresql://user:password@host:5432/database, as a dagster.EnvVar, since it "
        "has a password.",
    )

    @property
    def place(self) -> str:
        return _place(self.uri)

    @property
    def pool(self) -> str:
        is_variable = isinstance(self.uri, dg.EnvVar)
        return pool_of(self.kind, self.uri if is_variable else _database(self.uri))

    @contextmanager
    def connect(self) -> Iterator[PostgresConnection]:
        """Open a connection, which ends with the block."""
        connection = PostgresConnection(self.uri)
        try:
            yield connection
        finally:
            connection.close()


class PostgresConnection(ADBCConnection):
    """A connection to PostgreSQL, whose staged rows are in a temporary table."""

    types: ClassVar = {
        ColumnType.TEXT: "text",
        ColumnType.INTEGER: "bigint",
        ColumnType.FLOAT: "double precision",
        ColumnType.DECIMAL: "numeric",
        ColumnType.BOOLEAN: "boolean",
        ColumnType.DATE: "date",
        ColumnType.TIME: "time without time zone",
        ColumnType.TIMESTAMP: "timestamp with time zone",
        ColumnType.LOCAL_TIMESTAMP: "timestamp without time zone",
        ColumnType.BINARY: "bytea",
        ColumnType.JSON: "jsonb",
    }
    reported: ClassVar = {
        **{name: kind for kind, name in types.items()},
        "character varying": ColumnType.TEXT,
    }

    staged = f"pg_temp.{_STAGE}"
    json = "{}::jsonb"

    def __init__(self, uri: str) -> None:
        self._uri = uri
        super().__init__()

    def open(self) -> Any:
        import adbc_driver_postgresql.dbapi as driver

        return driver.connect(self._uri, autocommit=True)

    def explained(self, error: Any) -> OctogenTableError:
        return _error(self._uri, error)

    def has_schema(self, schema: str) -> bool:
        # The standard's view has the schemas alone that the user owns.
        return bool(
            self.query(f"SELECT 1 FROM pg_namespace WHERE nspname = {self.literal(schema)}")
        )

    @contextmanager
    def definition(self) -> Iterator[None]:
        with self.transaction():
            self.query(f"SELECT pg_advisory_xact_lock(hashtext({self.literal(_LOCK)}))")
            yield

    def create_table(self, table: Table) -> list[str]:
        statements = super().create_table(table)
        if table.parts:
            parts = ", ".join(map(self.quoted, table.parts))
            statements.append(f"CREATE INDEX ON {self.name(table)} ({parts})")
        return statements

    def stage(self, _table: Table, frames: Iterable[pl.DataFrame]) -> None:
        self.execute(f"DROP TABLE IF EXISTS {self.staged}")
        mode = "create"
        for frame in frames:
            self.ingest(_STAGE, frame, mode=mode, temporary=True)
            mode = "append"


def _error(uri: str, error: Any) -> OctogenTableError:
    place, state = _place(uri), error.sqlstate or ""
    *_, reason = re.split(r"(?:ERROR|FATAL): +|Failed to connect: ", str(error))
    reason = reason.strip().partition("\n")[0].rstrip(". ")
    if not state and any(word in reason for word in _MALFORMED):  # it quotes a part of the uri
        return OctogenTableError(
            f"{place} cannot be reached: its uri is malformed. Write it as "
            "postgresql://user:password@host:5432/database, with %40 for an @ in the password, "
            "and so on."
        )
    if password := _password(uri):
        reason = reason.replace(password, "***")
    if state in _CONFLICTS:
        return TableConflictError(f"{place} had a conflict with another run: {reason}.")
    if state.startswith(_PASSING) or not state:
        is_refused = not state and "FATAL" in str(error)
        advice = "Look at the user, the password and the database in its uri."
        if not is_refused:
            advice = "Look at whether the server runs, and at the host and the port in its uri."
        persistence = Persistence.PERMANENT if is_refused else Persistence.UNCLEAR
        return OctogenTableError(f"{place} cannot be used: {reason}. {advice}", persistence)
    advice = next((text for start, text in _ADVICE.items() if state.startswith(start)), "")
    return OctogenTableError(f"{place} refused a statement: {reason} ({state}). {advice}".strip())


def _place(uri: str) -> str:
    parts, name = _parts(uri), _database(uri)
    if not parts or not name or not _NAME.fullmatch(parts.hostname or ""):
        return "PostgreSQL"
    return f"PostgreSQL ({name} at {parts.hostname})"


def _database(uri: str) -> str:
    """The database that a URI names; empty where that could be a part of a password."""
    parts = _parts(uri)
    name = parts.path.strip("/") if parts else ""
    return name if _NAME.fullmatch(name) else ""


def _password(uri: str) -> str | None:
    parts = _parts(uri)
    return unquote(parts.password) if parts and parts.password else None


def _parts(uri: str) -> SplitResult | None:
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018  # raises an error if it is none
    except ValueError:
        return None
    return parts if parts.scheme in ("postgresql", "postgres") else None
