"""PostgresTables: tables in PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg
from pydantic import Field

from octogen_dagster.errors import OctogenTableError, Persistence
from octogen_dagster.masking import masked
from octogen_dagster.tables.adbc import ADBCConnection
from octogen_dagster.tables.destination import (
    Column,
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
_PASSING = ("25P03", "53", "55P03", "57014", "57P03")
"""Beginnings of SQLSTATE: no resources, a lock of another, a timeout, a server that starts."""
_UNREACHABLE = ("08", "57P")
"""Beginnings of SQLSTATE: no connection, a server that stops."""
_WITHOUT_STATE = {
    "Failed to connect.*(authentication failed|no password|pg_hba|role .* not exist)": "28",
    "Failed to connect.*database .* does not exist": "3D",
    "too many |connection slots": "53",
    "starting up|shutting down|recovery mode": "57P03",
    "idle-in-transaction timeout": "25P03",
}
"""Beginnings of SQLSTATE by the text of an error for which the driver has none."""
_ADVICE = {
    "25P03": "If reading the snapshot took too long, raise the user's "
    "idle_in_transaction_session_timeout.",
    "53100": "Make space on the server's disk.",
    "53": "Run fewer loads at once, by the limit of the pool, or give the server more.",
    "55P03": "Another session has locked the table. Let it end, or raise the user's lock_timeout.",
    "57014": "If it took too long, raise the user's statement_timeout: ALTER ROLE … SET "
    "statement_timeout = '10min'.",
    "22": "Look at the value in the snapshot, and at the type of the table's column.",
    "23": "Look at the constraints of the table, which the rows of the snapshot do not meet.",
    "28": "Look at the user and the password in its uri.",
    "3D": "Make the database, or name another one in its uri.",
    "42501": "Grant the user TEMPORARY and CREATE on the database, or make the schema and grant "
    "USAGE and CREATE on it; a table that another user owns needs that user.",
    "42": "Look at what the table or its schema is; rename or drop what is not this asset's.",
}
"""The advice by the beginning of SQLSTATE, the longest first."""
_TEXT = r"(?:[^\s@/?#%]|%(?!00)[0-9A-Fa-f]{2})*"
_HOST = r"(?:[\w.%-]*|\[[\w.:%]+\])(?::\d{1,5})?"
_OPTION = r"\w+=(?:[^\s@#%&=]|%(?!00)[0-9A-Fa-f]{2})*"
_URI = re.compile(
    rf"postgres(?:ql)?://(?:[^\s:@/?#]*(?::(?P<password>{_TEXT}))?@)?"
    rf"(?P<host>{_HOST}(?:,{_HOST})*)(?:/(?P<database>{_TEXT}))?"
    rf"(?:\?(?P<options>(?:{_OPTION}(?:&{_OPTION})*)?))?"
)
"""An address in which libpq finds the password where this pattern does."""
_NAME = re.compile(r"[\w.-]+")


class PostgresTables(TableDestination):
    """Tables in PostgreSQL, or in a database that speaks as it does."""

    kind: ClassVar[str] = "postgres"
    environment_fields: ClassVar[tuple[str, ...]] = ("uri",)

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

    @property
    def secrets(self) -> list[str]:
        options = (each.partition("=") for each in _part(self.uri, "options").split("&"))
        values = (value for name, _, value in options if "pass" in name or not value.isdecimal())
        return [secret for secret in (_part(self.uri, "password"), *values) if secret]

    @contextmanager
    def connect(self) -> Iterator[PostgresConnection]:
        """Open a connection, which ends with the block."""
        uri = self.uri.rstrip()  # a secret's file ends with a line break
        if not _URI.fullmatch(uri):  # libpq's error would quote a part of the password
            raise OctogenTableError(
                f"{self.place} cannot be reached: its uri is malformed. Write it as "
                "postgresql://user:password@host:5432/database, with %40 for an @ in the password, "
                "%25 for a %, and so on."
            )
        with closing(PostgresConnection(self.place, uri, self.secrets)) as connection:
            yield connection


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
    listing = (  # with precisions and lengths, to which values are rounded or cut
        "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
        "JOIN pg_class ON pg_class.oid = attrelid "
        "JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE attnum > 0 AND NOT attisdropped AND nspname = {} AND relname = {}"
    )
    staged = f"pg_temp.{_STAGE}"
    json = "{}::jsonb"
    has_definitions_in_transactions = True
    # Else rows are copied while they are read, and an error there comes without its SQLSTATE.
    statement_options: ClassVar = {"adbc.postgresql.use_copy": "false"}

    def __init__(self, place: str, uri: str, secrets: Sequence[str]) -> None:
        self._place, self._uri, self._secrets = place, uri, secrets
        self._frames: Iterable[pl.DataFrame] = ()
        super().__init__()

    def open(self) -> Any:
        import adbc_driver_postgresql.dbapi as driver

        return driver.connect(self._uri, autocommit=True)

    def explained(self, error: Any) -> OctogenTableError:
        return _error(self._place, error, self._secrets)

    def has_schema(self, schema: str) -> bool:
        # The standard's view has the schemas alone that the user owns.
        return bool(
            self.query(f"SELECT 1 FROM pg_namespace WHERE nspname = {self.literal(schema)}")
        )

    @contextmanager
    def definition(self) -> Iterator[None]:
        with self.transaction():
            # IF NOT EXISTS fails in PostgreSQL if two sessions make the same thing at once.
            self.query(f"SELECT pg_advisory_xact_lock(hashtext({self.literal(_LOCK)}))")
            yield

    def create_table(self, table: Table) -> list[str]:
        statements = super().create_table(table)
        if table.key and not self.has_key(table):
            key = ", ".join(map(self.quoted, table.key))
            statements.append(f"CREATE UNIQUE INDEX ON {self.name(table)} ({key})")
        if table.parts:
            parts = ", ".join(map(self.quoted, table.parts))
            statements.append(f"CREATE INDEX ON {self.name(table)} ({parts})")
        return statements

    def stage(self, _table: Table, frames: Iterable[pl.DataFrame]) -> None:
        self._frames = frames

    def upload(self, table: Table) -> None:
        # Within the transaction, since between two of them a pooler may change the session.
        self._create_stage(table.columns)
        for frame in self._frames:
            self.ingest(_STAGE, frame, mode="append", temporary=True)

    def try_out(self, schema: str) -> None:
        with self.transaction():
            self._create_stage(())
            super().try_out(schema)

    def _create_stage(self, columns: Iterable[Column]) -> None:
        types = {**self.types, ColumnType.JSON: "text"}
        declared = ", ".join(f"{self.quoted(each.name)} {types[each.type]}" for each in columns)
        self.execute(f"CREATE TEMPORARY TABLE {_STAGE} ({declared}) ON COMMIT DROP")


def _error(place: str, error: Any, secrets: Sequence[str]) -> OctogenTableError:
    is_told = bool(error.sqlstate)
    known = (state for part, state in _WITHOUT_STATE.items() if re.search(part, str(error)))
    state = error.sqlstate or next(known, "")
    *_, reason = re.split(r"(?:ERROR|FATAL): +|Failed to connect: ", str(error))
    reason = masked(reason.strip().partition("\n")[0].rstrip(". "), secrets)
    if state in _CONFLICTS:
        return TableConflictError(f"{place} had a conflict with another run: {reason}.")
    advice = next((text for start, text in _ADVICE.items() if state.startswith(start)), "")
    persistence = Persistence.PASSING if state.startswith(_PASSING) else Persistence.PERMANENT
    if state.startswith(_UNREACHABLE) or not state:
        advice = "Look at whether the server runs, and at the host and the port in its uri."
        if persistence is not Persistence.PASSING:
            persistence = Persistence.UNCLEAR
    text = f"refused a statement: {reason} ({state})" if is_told else f"cannot be used: {reason}"
    return OctogenTableError(f"{place} {text}. {advice}".strip(), persistence)


def _place(uri: str) -> str:
    host, name = _part(uri, "host").partition(":")[0], _database(uri)
    return f"PostgreSQL ({name} at {host})" if name and _NAME.fullmatch(host) else "PostgreSQL"


def _database(uri: str) -> str:
    name = _part(uri, "database")
    return name if _NAME.fullmatch(name) else ""


def _part(uri: str, name: str) -> str:
    """A part of an address; empty if it is malformed, and the part could be one of a password."""
    found = _URI.fullmatch(uri.rstrip())
    return (found and found[name]) or ""
