"""The YAML of tables: the destination, and which assets have one."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import field_validator, model_validator

from octogen_dagster.components.yaml_model import (
    VARIABLE,
    YamlModel,
    check_not_written_out,
    text_for,
)
from octogen_dagster.errors import MissingPackageError
from octogen_dagster.tables import postgres, snowflake
from octogen_dagster.tables.bigquery import BigQueryTables
from octogen_dagster.tables.delta import DeltaTables
from octogen_dagster.tables.destination import TableDestination
from octogen_dagster.tables.duckdb import DuckDBTables
from octogen_dagster.tables.iceberg import IcebergTables
from octogen_dagster.validation import require_extras


class PostgresTables(postgres.PostgresTables):  # named as errors name it
    __doc__ = postgres.PostgresTables.__doc__
    _check_uri = field_validator("uri", mode="before")(check_not_written_out)


class SnowflakeTables(snowflake.SnowflakeTables):
    __doc__ = snowflake.SnowflakeTables.__doc__
    _check_secrets = field_validator("password", "private_key", mode="before")(
        check_not_written_out
    )


class DestinationSettings(YamlModel):
    """Where tables are: one engine, with the fields of its destination."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_text(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(
                "must be a mapping: write duckdb: shop.duckdb, or another engine, below it"
            )
        return value

    duckdb: Annotated[
        DuckDBTables | None, text_for(DuckDBTables, lambda text: {"database": text}), VARIABLE
    ] = None
    """The path of a DuckDB file, or `database`."""
    postgres: Annotated[
        PostgresTables | None, text_for(PostgresTables | None, lambda text: {"uri": text}), VARIABLE
    ] = None
    """The connection URI, or `uri`."""
    snowflake: Annotated[SnowflakeTables | None, VARIABLE] = None
    """`account`, `user`, `database`, and `password` or `private_key`."""
    bigquery: Annotated[BigQueryTables | None, VARIABLE] = None
    """`project` and `dataset`."""
    iceberg: Annotated[
        IcebergTables | None, text_for(IcebergTables, lambda text: {"warehouse": text}), VARIABLE
    ] = None
    """The folder of the warehouse, or `warehouse`, `catalog` and pyiceberg's `properties`."""
    delta: Annotated[
        DeltaTables | None, text_for(DeltaTables, lambda text: {"base_dir": text}), VARIABLE
    ] = None
    """The folder or bucket of the tables, or `base_dir` and `storage_options`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(each is not None for _, each in self) != 1:
            raise ValueError(
                "a destination is one of duckdb, postgres, snowflake, bigquery, iceberg and delta: "
                "write one"
            )
        try:
            require_extras("a table", self.destination().kind)
        except MissingPackageError as error:
            raise ValueError(str(error)) from None
        return self

    def destination(self) -> TableDestination:
        """The destination that these settings have."""
        (destination,) = (each for _, each in self if each is not None)
        return destination  # type: ignore[no-any-return]


class LinkedTableSettings(YamlModel):
    """The table of the snapshots of linked views."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_text(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(
                "must be a mapping: write destination: {duckdb: shop.duckdb}, or another engine, "
                "below it"
            )
        return value

    destination: DestinationSettings
    """`duckdb`, `postgres`, `snowflake`, `bigquery`, `iceberg` or `delta`, with its fields."""


class TableSettings(LinkedTableSettings):
    """The tables of a search's assets. Each is named as its asset."""

    of: (
        list[Literal["products", "changes", "details", "brands", "history", "alerts", "position"]]
        | None
    ) = None
    """The assets that have a table; by default all that the search has."""
