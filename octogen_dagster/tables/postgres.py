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
_LOCK = "octogen-dagster DDL"
_CONFLICTS = ("40001", "40P01")
"""SQLSTATEs for a serialization failure and a deadlock."""
_PASSING = ("25P03", "53", "55P03", "57014", "57P03")
"""SQLSTATE prefixes for temporary errors, such as timeouts, locks and server startup."""
_UNREACHABLE = ("08", "57P")
"""SQLSTATE prefixes for connection failures and server shutdown."""
_WITHOUT_STATE = {
    "Failed to connect.*(authentication failed|no password|pg_hba|role .* not exist)": "28",
    "Failed to connect.*database .* does not exist": "3D",
    "too many |connection slots": "53",
    "starting up|shutting down|recovery mode": "57P03",
    "idle-in-transaction timeout": "25P03",
}
"""Maps error texts to SQLSTATE prefixes, for driver errors without a SQLSTATE."""
_ADVICE = {
    "25P03": "Raise the user's idle_in_transaction_session_timeout.",
    "53100": "Free disk space on the server.",
    "53": "Lower the pool limit to run fewer loads, or give the server more resources.",
    "55P03": "Another session has locked the table. Wait until that session ends, or raise the "
    "user's lock_timeout.",
    "57014": "Raise the user's statement_timeout: ALTER ROLE … SET statement_timeout = '10min'.",
    "22": "A value does not fit the column's type in the table. Compare the snapshot's values "
    "with the column's type.",
    "23": "The snapshot's rows violate a constraint on the table. Drop the constraint.",
    "28": "Check the user and password in uri.",
    "3D": "Create the database, or correct its name in uri.",
    "42501": "Grant the user TEMPORARY and CREATE on the database, or create the schema and grant "
    "USAGE and CREATE on it. An existing table must belong to the user.",
    "42": "Check the table and its schema. Rename or drop objects that belong to another "
    "application.",
}
"""Advice by SQLSTATE prefix. Longer prefixes come first."""
_TEXT = r"(?:[^\s@/?#%]|%(?!00)[0-9A-Fa-f]{2})*"
_HOST = r"(?:[\w.%-]*|\[[\w.:%]+\])(?::\d{1,5})?"
_OPTION = r"\w+=(?:[^\s@#%&=]|%(?!00)[0-9A-Fa-f]{2})*"
_URI = re.compile(
    rf"postgres(?:ql)?://(?:[^\s:@/?#]*(?::(?P<password>{_TEXT}))?@)?"
    rf"(?P<host>{_HOST}(?:,{_HOST})*)(?:/(?P<database>{_TEXT}))?"
    rf"(?:\?(?P<options>(?:{_OPTION}(?:&{_OPTION})*)?))?"
)
"""Matches a URI only if libpq parses it into the same parts.

For any other URI, the wrong text might be masked as the password.
"""
_NAME = re.compile(r"[\w.-]+")


class PostgresTables(TableDestination):
    """Tables in PostgreSQL, or in a database with the same wire protocol."""

    kind: ClassVar[str] = "postgres"
    environment_fields: ClassVar[tuple[str, ...]] = ("uri",)

    uri: str = Field(
        repr=False,
        description="Connection URI: postgresql://user:password@host:5432/database. Pass it as a "
        "dagster.EnvVar, because it contains a password.",
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
        uri = self.uri.rstrip()  # secret files end with a line break
        if not _URI.fullmatch(uri):  # libpq's error would quote part of the password
            raise OctogenTableError(
                f"The uri for {self.place} is malformed. Use the form "
                "postgresql://user:password@host:5432/database, and percent-encode special "
                "characters in the password, such as %40 for @."
            )
        with closing(PostgresConnection(self.place, uri, self.secrets)) as connection:
            yield connection


class PostgresConnection(ADBCConnection):
    """A PostgreSQL connection. Rows are staged in a temporary table."""

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
    listing = (  # with precision and length, because values are rounded or truncated to them
        "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
        "JOIN pg_class ON pg_class.oid = attrelid "
        "JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE attnum > 0 AND NOT attisdropped AND nspname = {} AND relname = {}"
    )
    staged = f"pg_temp.{_STAGE}"
    json = "{}::jsonb"
    has_definitions_in_transactions = True
    # With COPY, an error while rows are read would have no SQLSTATE.
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
        # information_schema only lists schemas the user owns.
        return bool(
            self.query(f"SELECT 1 FROM pg_namespace WHERE nspname = {self.literal(schema)}")
        )

    @contextmanager
    def definition(self) -> Iterator[None]:
        with self.transaction():
            # IF NOT EXISTS fails if two sessions create the same object concurrently.
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
        # Inside the transaction, because a pooler can switch sessions between transactions.
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
    has_state = bool(error.sqlstate)
    known = (state for part, state in _WITHOUT_STATE.items() if re.search(part, str(error)))
    state = error.sqlstate or next(known, "")
    *_, reason = re.split(r"(?:ERROR|FATAL): +|Failed to connect: ", str(error))
    reason = masked(reason.strip().partition("\n")[0].rstrip(". "), secrets)
    if state in _CONFLICTS:
        return TableConflictError(f"{place}: conflict with another run: {reason}.")
    advice = next((text for start, text in _ADVICE.items() if state.startswith(start)), "")
    persistence = Persistence.PASSING if state.startswith(_PASSING) else Persistence.PERMANENT
    if state.startswith(_UNREACHABLE) or not state:
        advice = "Check that the server is running and that the host and port in uri are correct."
        if persistence is not Persistence.PASSING:
            persistence = Persistence.UNCLEAR
    text = f"rejected a statement: {reason} ({state})" if has_state else f"failed: {reason}"
    return OctogenTableError(f"{place} {text}. {advice}".strip(), persistence)


def _place(uri: str) -> str:
    host, name = _part(uri, "host").partition(":")[0], _database(uri)
    return f"PostgreSQL ({name} at {host})" if name and _NAME.fullmatch(host) else "PostgreSQL"


def _database(uri: str) -> str:
    name = _part(uri, "database")
    return name if _NAME.fullmatch(name) else ""


def _part(uri: str, name: str) -> str:
    """Return part of a URI, or an empty string if the URI is malformed.

    In a malformed URI, any part might contain the password.
    """
    found = _URI.fullmatch(uri.rstrip())
    return (found and found[name]) or ""
