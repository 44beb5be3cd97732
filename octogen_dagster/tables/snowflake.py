"""SnowflakeTables: tables in Snowflake."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

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
    refuse_written_secrets,
)

if TYPE_CHECKING:
    import polars as pl

_STAGE = "_octogen_stage"
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")
"""Matches a name that needs no quotes. Snowflake stores such names in upper case."""
_CONFLICTS = ("Statement aborted because", "had another transaction", "deadlock")


class SnowflakeTables(TableDestination):
    """Tables in Snowflake, with password or key-pair authentication.

    Lowercase names are stored in upper case, so that queries can use them without quotes.
    """

    kind: ClassVar[str] = "snowflake"
    environment_fields: ClassVar[tuple[str, ...]] = ("password", "private_key")

    account: str = Field(description="Account identifier in the form organization-account.")
    user: str = Field(description="User name.")
    database: str = Field(description="Name of an existing database.")
    warehouse: str | None = Field(
        default=None, description="Virtual warehouse that runs the statements."
    )
    role: str | None = Field(default=None, description="Role. Defaults to the user's default role.")
    password: str | None = Field(
        default=None,
        repr=False,
        description="Password or programmatic access token, as a dagster.EnvVar.",
    )
    private_key: str | None = Field(
        default=None,
        repr=False,
        description="Private key in PKCS#8 PEM format, as a dagster.EnvVar.",
    )
    driver_options: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description="Additional ADBC driver options by name. Pass each secret as a dagster.EnvVar.",
    )

    _refuse_secrets = field_validator("driver_options")(refuse_written_secrets)

    @property
    def place(self) -> str:
        return f"Snowflake ({self.database} of {self.account})"

    @property
    def pool(self) -> str:
        return pool_of(self.kind, self.database)

    @contextmanager
    def connect(self) -> Iterator[SnowflakeConnection]:
        options = {
            "username": self.user,
            "adbc.snowflake.sql.account": self.account,
            "adbc.snowflake.sql.db": self.database,
            "adbc.snowflake.sql.warehouse": self.warehouse,
            "adbc.snowflake.sql.role": self.role,
            "password": self.password,
            **self.driver_options,
        }
        if self.private_key:
            options["adbc.snowflake.sql.auth_type"] = "auth_jwt"
            options[_KEY_OPTION] = self.private_key
        given = {name: value for name, value in options.items() if value is not None}
        with closing(SnowflakeConnection(self.place, given, self.secrets)) as connection:
            yield connection


_KEY_OPTION = "adbc.snowflake.sql.client_option.jwt_private_key_pkcs8_value"


class SnowflakeConnection(ADBCConnection):
    """A Snowflake session. Rows are staged in a temporary table."""

    types: ClassVar = {
        ColumnType.TEXT: "VARCHAR",
        ColumnType.INTEGER: "NUMBER(38, 0)",
        ColumnType.FLOAT: "FLOAT",
        ColumnType.DECIMAL: "NUMBER(38, 9)",
        ColumnType.BOOLEAN: "BOOLEAN",
        ColumnType.DATE: "DATE",
        ColumnType.TIME: "TIME",
        ColumnType.TIMESTAMP: "TIMESTAMP_TZ",
        ColumnType.LOCAL_TIMESTAMP: "TIMESTAMP_NTZ",
        ColumnType.BINARY: "BINARY",
        ColumnType.JSON: "VARIANT",
    }
    reported: ClassVar = {
        "text": ColumnType.TEXT,
        "number": ColumnType.INTEGER,
        "float": ColumnType.FLOAT,
        "boolean": ColumnType.BOOLEAN,
        "date": ColumnType.DATE,
        "time": ColumnType.TIME,
        "timestamp_tz": ColumnType.TIMESTAMP,
        "timestamp_ntz": ColumnType.LOCAL_TIMESTAMP,
        "binary": ColumnType.BINARY,
        "variant": ColumnType.JSON,
    }
    escapes: ClassVar = {"\\": "\\\\"}
    json = "PARSE_JSON({})"

    def __init__(self, place: str, options: dict[str, str], secrets: Sequence[str]) -> None:
        self._place, self._options, self._secrets = place, options, secrets
        super().__init__()

    def open(self) -> Any:
        import adbc_driver_snowflake.dbapi as driver

        return driver.connect(db_kwargs=self._options, autocommit=True)

    def explained(self, error: Any) -> OctogenTableError:
        return _error(self._place, error, self._secrets)

    def columns(self, table: Table) -> Mapping[str, ColumnType | None]:
        scale = {0: ColumnType.INTEGER, 9: ColumnType.DECIMAL}
        found = self.query(
            "SELECT column_name, data_type, numeric_scale FROM information_schema.columns WHERE "
            f"table_schema = {self.literal(_folded(table.schema))} AND "
            f"table_name = {self.literal(_folded(table.name))}"
        )
        columns = {
            _unfolded(str(name)): scale.get(int(places or 0))
            if str(kind).lower() == "number"
            else self.reported.get(str(kind).lower())
            for name, kind, places in found
        }
        self._known[table.schema, table.name] = columns
        return columns

    def has_schema(self, schema: str) -> bool:
        return super().has_schema(_folded(schema))

    def create_table(self, table: Table) -> list[str]:
        (create,) = super().create_table(table)
        return [f"{create} COMMENT = {self.literal(table.description)}"]

    def declaration(self, column: Column) -> str:
        return f"{super().declaration(column)} COMMENT {self.literal(column.description)}"

    def comments(self, _table: Table, _columns: Sequence[Column]) -> list[str]:
        return []  # included in the definitions

    def quoted(self, name: str) -> str:
        return super().quoted(_folded(name))

    def stage(self, table: Table, frames: Iterable[pl.DataFrame]) -> None:
        self.create_schema(table.schema)
        # The driver creates its stage in the current schema.
        self.execute(f"USE SCHEMA {self.schema(table.schema)}")
        self.staged = self.quoted(_STAGE)
        columns = ", ".join(self.declaration(_staged(column)) for column in table.columns)
        self.execute(f"CREATE OR REPLACE TEMPORARY TABLE {self.staged} ({columns})")
        self.ingest(_folded(_STAGE), _reader(frames), mode="append")


def _folded(name: str) -> str:
    """Convert a name to upper case unless it needs quotes."""
    return name.upper() if _PLAIN.fullmatch(name) else name


def _unfolded(name: str) -> str:
    return name.lower() if _PLAIN.fullmatch(name.lower()) else name


def _staged(column: Column) -> Column:
    return column._replace(type=ColumnType.TEXT) if column.type is ColumnType.JSON else column


def _reader(frames: Iterable[pl.DataFrame]) -> Any:
    """Return the frames as a single Arrow stream. The driver splits the stream into files."""
    import polars as pl
    import pyarrow as pa

    oldest = pl.CompatLevel.oldest()
    tables = (frame.rename(_folded).to_arrow(compat_level=oldest) for frame in frames)
    first = next(tables)
    batches = (batch for table in chain([first], tables) for batch in table.to_batches())
    return pa.RecordBatchReader.from_batches(first.schema, batches)


def _error(place: str, error: Any, secrets: Sequence[str]) -> OctogenTableError:
    reason = masked(str(error).strip().partition("\n")[0], secrets)
    if any(word in reason for word in _CONFLICTS):
        return TableConflictError(f"{place}: conflict with another run: {reason}")
    return OctogenTableError(
        f"{place} failed: {reason}. Check the table, and the role's privileges on the warehouse, "
        "database and schema.",
        Persistence.UNCLEAR,
    )
