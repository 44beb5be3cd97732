"""The YAML of tables: the destination, and which assets have one.

The fields are those of the destinations. They are written out here, since a code location without a
table imports nothing of tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from octogen_dagster.components.yaml_model import (
    VARIABLE,
    Text,
    YamlModel,
    check_not_written_out,
    text_for,
)
from octogen_dagster.errors import MissingPackageError
from octogen_dagster.validation import require_extras

if TYPE_CHECKING:
    from octogen_dagster.tables.destination import TableDestination


class DuckDBSettings(YamlModel):
    """The fields of `DuckDBTables`."""

    database: Text
    """The path of a file, md:<database> for MotherDuck, or ducklake:<catalog>."""

    @field_validator("database")
    @classmethod
    def _check_database(cls, database: str) -> str:
        from octogen_dagster.tables.duckdb import checked_database

        return checked_database(database)


class PostgresSettings(YamlModel):
    """The fields of `PostgresTables`."""

    uri: Text
    """postgresql://user:password@host:5432/database, as "{{ env.NAME }}"."""

    _check_uri = field_validator("uri")(check_not_written_out)


class SnowflakeSettings(YamlModel):
    """The fields of `SnowflakeTables`."""

    account: Text
    """The account's identifier, as organization-account."""
    user: Text
    """The user."""
    database: Text
    """The database, which exists."""
    warehouse: Text | None = None
    """The warehouse that works and is paid."""
    role: Text | None = None
    """The role; by default the user's own."""
    password: Text | None = None
    """The password or a programmatic access token, as "{{ env.NAME }}"."""
    private_key: Text | None = None
    """The private key of a key pair in PKCS#8 and PEM, as "{{ env.NAME }}"."""
    driver_options: dict[str, str] = Field(default_factory=dict)
    """Further options of the ADBC driver, by their names."""

    _check_secrets = field_validator("password", "private_key")(check_not_written_out)


class BigQuerySettings(YamlModel):
    """The fields of `BigQueryTables`."""

    project: Text
    """The project that the dataset is in and that pays."""
    dataset: Text = "octogen"
    """The dataset; it is made if it is not there."""
    location: Text | None = None
    """The location of the dataset, such as EU; by default US."""


class DestinationSettings(YamlModel):
    """Where tables are: one engine, with its fields."""

    duckdb: Annotated[
        DuckDBSettings | None,
        text_for(DuckDBSettings, lambda text: {"database": text}),
        VARIABLE,
    ] = None
    """The path of a DuckDB file, or `database`."""
    postgres: PostgresSettings | None = None
    """`uri`."""
    snowflake: SnowflakeSettings | None = None
    """`account`, `user`, `database`, and `password` or `private_key`."""
    bigquery: BigQuerySettings | None = None
    """`project` and `dataset`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.written()) != 1:
            raise ValueError(
                "a destination is one of duckdb, postgres, snowflake and bigquery: write one"
            )
        try:
            require_extras("a table", self.destination().kind)
        except MissingPackageError as error:
            raise ValueError(str(error)) from None
        return self

    def destination(self) -> TableDestination:
        """The destination that these settings describe."""
        from octogen_dagster.tables.bigquery import BigQueryTables
        from octogen_dagster.tables.duckdb import DuckDBTables
        from octogen_dagster.tables.postgres import PostgresTables
        from octogen_dagster.tables.snowflake import SnowflakeTables

        kinds: dict[str, type[TableDestination]] = {
            "duckdb": DuckDBTables,
            "postgres": PostgresTables,
            "snowflake": SnowflakeTables,
            "bigquery": BigQueryTables,
        }
        ((engine, settings),) = self.written().items()
        return kinds[engine](**settings.written())


class LinkedTableSettings(YamlModel):
    """The table of the snapshots of linked views."""

    destination: DestinationSettings
    """`duckdb`, `postgres`, `snowflake` or `bigquery`, with its fields."""


class TableSettings(LinkedTableSettings):
    """The tables of a search's assets. Each is named as its asset."""

    of: list[Literal["products", "changes", "details", "brands", "history", "alerts"]] | None = None
    """The assets that have a table; by default all that the search has."""
