"""Real databases and warehouses that tests put tables into, with readers that are not ours."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote

import polars as pl
import pytest
from sqlite_tables import SQLiteTables

from octogen_dagster.tables import (
    BigQueryTables,
    DeltaTables,
    DuckDBTables,
    IcebergTables,
    PostgresTables,
    SnowflakeTables,
    TableDestination,
    bigquery,
)

Row = dict[str, Any]
FAKESNOW = os.environ.get("FAKESNOW")
"""The folder that `tests/servers/snowflake_emulator.sh` made."""
POLARS = tuple(map(int, pl.__version__.split(".")[:2]))
needs_iceberg = pytest.mark.skipif(POLARS < (2, 1), reason="needs Polars 2.1")
needs_bigquery = pytest.mark.skipif(
    "LOCAL_BIGQUERY" not in os.environ,
    reason="needs the BigQuery emulator: see tests/servers/bigquery_emulator.sh",
)
needs_snowflake = pytest.mark.skipif(
    not FAKESNOW, reason="needs fakesnow: see tests/servers/snowflake_emulator.sh"
)


class Location(NamedTuple):
    """Where a warehouse is, for another process: the destination, and the environment."""

    kind: type[TableDestination]
    settings: dict[str, Any]
    variables: Mapping[str, str] = {}

    def destination(self) -> TableDestination:
        """The destination that leads there."""
        os.environ.update(self.variables)
        if self.kind is BigQueryTables:  # the emulator has words of its own for a conflict
            bigquery._CONFLICT = re.compile("Failed to commit DuckLake transaction")
        return self.kind(**self.settings)


class Warehouse(ABC):
    """A database that is empty in the beginning.

    Attributes:
        location: Where it is.
        schema: The name of the schema of its tables in a statement.
        server: The fixture of the server or folder that it is in.
        marks: The marks of its tests.
        has_comments: True if tables have comments.
        has_setup: True if it can execute the `setup.sql` of its guide.
        examples: What its guide writes for where it is, and what to write here.
    """

    location: Location
    schema = "octogen"
    server: ClassVar[str] = "tmp_path"
    marks: ClassVar[Sequence[pytest.MarkDecorator]] = (pytest.mark.slow,)
    has_comments: ClassVar[bool] = True
    has_setup: ClassVar[bool] = False
    examples: Mapping[str, str] = {}

    def __init__(self, server: Any) -> None:
        raise NotImplementedError

    @property
    def destination(self) -> TableDestination:
        """The destination that leads there."""
        return self.location.destination()

    @abstractmethod
    def query(self, sql: str) -> list[Row]:
        """Execute a statement by a client of the engine, and return its rows by column."""

    def execute(self, sql: str) -> None:
        """Execute a statement by a client of the engine, and commit it."""
        self.query(sql)

    def quoted(self, name: str) -> str:
        """A name in a statement."""
        return f'"{name}"'

    def rows(self, table: str) -> list[Row]:
        """Read a table, with JSON as values and times in UTC."""
        return [
            {name: _value(value) for name, value in row.items()}
            for row in self.query(f"SELECT * FROM {self.schema}.{table}")
        ]

    def types(self, table: str) -> dict[str, str]:
        """The types of a table's columns, as the engine names them."""
        found = self.query(
            "SELECT column_name AS name, data_type AS type FROM information_schema.columns WHERE "
            f"lower(table_schema) = 'octogen' AND lower(table_name) = '{table}'"
        )
        return {row["name"]: row["type"] for row in found}

    @abstractmethod
    def comments(self, table: str) -> dict[str, str]:
        """The comments on a table, by "", and on its columns."""

    def close(self) -> None:  # noqa: B027
        """Close the reader."""


class DuckDB(Warehouse):
    marks = ()

    def __init__(self, folder: Path) -> None:
        self.path = folder / "octogen.duckdb"  # its schema has the same name
        self.schema = "octogen.octogen"
        self.location = Location(DuckDBTables, {"database": str(self.path)})

    def query(self, sql: str) -> list[Row]:
        with _unlocked(self.path) as connection:
            found = connection.execute(sql)
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def comments(self, table: str) -> dict[str, str]:
        of_table = self.query(
            f"SELECT comment AS text FROM duckdb_tables() WHERE table_name = '{table}'"
        )
        of_columns = self.query(
            "SELECT column_name AS name, comment AS text FROM duckdb_columns() WHERE "
            f"table_name = '{table}'"
        )
        return {"": of_table[0]["text"], **{row["name"]: row["text"] for row in of_columns}}


class Lake(Warehouse):
    """Tables of files, which their library reads and DuckDB queries."""

    @abstractmethod
    def table(self, name: str) -> Any:
        """A table as its library has it."""

    @abstractmethod
    def tables(self) -> Mapping[str, Any]:
        """The tables as Arrow has them, by name; `_octogen_loads` is what their commits note."""

    def query(self, sql: str) -> list[Row]:
        import duckdb

        with duckdb.connect() as connection:
            connection.execute("CREATE SCHEMA octogen; SET TimeZone = 'UTC'")
            for name, table in self.tables().items():
                connection.register(f"{name}_view", table)
                connection.execute(f"CREATE VIEW octogen.{name} AS FROM {name}_view")
            found: pl.DataFrame = connection.sql(sql).pl()
            return found.to_dicts()

    def rows(self, table: str) -> list[Row]:
        return pl.DataFrame(self.tables()[table]).to_dicts()

    def execute(self, sql: str) -> None:
        words = sql.split()
        table = words[2].removeprefix("octogen.")
        if words[0] == "DROP":
            self.drop(table)
        else:
            self.delete(table, sql.partition(" WHERE ")[2])

    @abstractmethod
    def drop(self, table: str) -> None: ...

    @abstractmethod
    def delete(self, table: str, condition: str) -> None: ...


class Iceberg(Lake):
    marks = (pytest.mark.slow, needs_iceberg)

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "lake"
        planner = {"POLARS_ICEBERG_PLANNER": "pyiceberg"}  # without a warning
        self.location = Location(IcebergTables, {"warehouse": str(self._folder)}, planner)

    @property
    def catalog(self) -> Any:
        from pyiceberg.catalog import load_catalog

        uri = f"sqlite:///{self._folder}/catalog.sqlite"
        return load_catalog("octogen", uri=uri, warehouse=self._folder.as_uri())

    def table(self, name: str) -> Any:
        return self.catalog.load_table(("octogen", name))

    def tables(self) -> Mapping[str, Any]:
        tables, loads = {}, []
        for identifier in self.catalog.list_tables("octogen"):
            table = self.catalog.load_table(identifier)
            # By Polars: of lists of structs that are null, pyiceberg makes empty ones.
            tables[identifier[-1]] = pl.scan_iceberg(table).collect().to_arrow()
            noted = table.current_snapshot().summary
            loads.append(
                {"table_name": identifier[-1], "row_count": int(noted["octogen.row_count"])}
            )
        return {**tables, "_octogen_loads": pl.DataFrame(loads).to_arrow()}

    def comments(self, table: str) -> dict[str, str]:
        found = self.table(table)
        return {"": found.properties["comment"], **{f.name: f.doc for f in found.schema().fields}}

    def drop(self, table: str) -> None:
        self.catalog.drop_table(("octogen", table))

    def delete(self, table: str, condition: str) -> None:
        self.table(table).delete(condition)


class Delta(Lake):
    def __init__(self, folder: Path) -> None:
        self._folder = folder / "lake"
        self.location = Location(DeltaTables, {"base_dir": str(self._folder)})

    def table(self, name: str) -> Any:
        from deltalake import DeltaTable

        return DeltaTable(self._folder / "octogen" / name)

    def tables(self) -> Mapping[str, Any]:
        tables, loads = {}, []
        for folder in (self._folder / "octogen").iterdir():
            table = self.table(folder.name)
            tables[folder.name] = pl.read_delta(table).to_arrow()
            noted, *_ = table.history(1)
            loads.append(
                {"table_name": folder.name, "row_count": int(noted.get("octogen.row_count", 0))}
            )
        return {**tables, "_octogen_loads": pl.DataFrame(loads).to_arrow()}

    def comments(self, table: str) -> dict[str, str]:
        found = self.table(table)
        columns = {field.name: field.metadata.get("comment") for field in found.schema().fields}
        return {"": found.metadata().description, **columns}

    def drop(self, table: str) -> None:
        shutil.rmtree(self._folder / "octogen" / table)

    def delete(self, table: str, condition: str) -> None:
        self.table(table).delete(condition)


@contextlib.contextmanager
def _unlocked(path: Path) -> Iterator[Any]:
    """Open a file that another process may be writing to, and wait for it."""
    import duckdb

    ends_at = time.monotonic() + 60
    while True:
        try:
            connection = duckdb.connect(str(path))
            break
        except duckdb.IOException as error:
            if "lock" not in str(error) or time.monotonic() > ends_at:
                raise
            time.sleep(0.01)
    with connection:
        yield connection


class Postgres(Warehouse):
    server = "postgres_server"
    has_setup = True

    def __init__(self, server: Mapping[str, str]) -> None:
        self._server = server
        name = f"shop_{uuid.uuid4().hex}"
        with contextlib.closing(self._connect("postgres")) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {name}")
        self._reader = self._connect(name)
        self._reader.autocommit = True
        user, password = (quote(server[f"DAGSTER_POSTGRES_{each}"], safe="") for each in _LOGIN)
        host, port = (server[f"DAGSTER_POSTGRES_{each}"] for each in ("HOST", "PORT"))
        self.uri = f"postgresql://{user}:{password}@{host}:{port}/{name}"
        self.location = Location(PostgresTables, {"uri": self.uri})
        self.examples = {
            "localhost:5432/shop": f"{host}:{port}/{name}",
            "DATABASE shop": f"DATABASE {name}",
        }

    def _connect(self, database: str) -> Any:
        import psycopg2

        host, port, user, password = (
            self._server[f"DAGSTER_POSTGRES_{each}"] for each in ("HOST", "PORT", *_LOGIN)
        )
        return psycopg2.connect(host=host, port=port, user=user, password=password, dbname=database)

    def query(self, sql: str) -> list[Row]:
        with self._reader.cursor() as cursor:
            cursor.execute(sql)
            if cursor.description is None:
                return []
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def comments(self, table: str) -> dict[str, str]:
        found = self.query(
            "SELECT coalesce(attname, '') AS name, description AS text FROM pg_description "
            "LEFT JOIN pg_attribute ON attrelid = objoid AND attnum = objsubid AND objsubid > 0 "
            f"WHERE objoid = 'octogen.{table}'::regclass"
        )
        return {row["name"]: row["text"] for row in found}

    def close(self) -> None:
        self._reader.close()


_LOGIN = ("USER", "PASSWORD")


class BigQuery(Warehouse):
    server = "bigquery_server"
    marks = (pytest.mark.world, needs_bigquery)

    def __init__(self, variables: Mapping[str, str]) -> None:
        from google.cloud.bigquery import Client

        from tests.servers.bigquery import PROJECT

        os.environ.update(variables)
        self.project = PROJECT
        self.schema = f"octogen_{uuid.uuid4().hex}"
        self.client = Client(project=PROJECT)
        settings = {"project": PROJECT, "dataset": self.schema}
        self.location = Location(BigQueryTables, settings, variables)
        self.examples = {
            "dataset: octogen": f"dataset: {self.schema}",
            ", location: EU": "",
            "octogen.octogen_": f"{self.schema}.octogen_",
        }

    def query(self, sql: str) -> list[Row]:
        return [dict(row.items()) for row in self.client.query(sql).result()]

    def quoted(self, name: str) -> str:
        return f"`{name}`"

    def types(self, table: str) -> dict[str, str]:
        found = self.client.get_table(f"{self.project}.{self.schema}.{table}")
        return {field.name: field.field_type for field in found.schema}

    def comments(self, table: str) -> dict[str, str]:
        found = self.client.get_table(f"{self.project}.{self.schema}.{table}")
        return {"": found.description, **{each.name: each.description for each in found.schema}}


class Snowflake(Warehouse):
    server = "snowflake_server"
    marks = (pytest.mark.world, needs_snowflake)

    def __init__(self, port: int) -> None:
        import adbc_driver_snowflake.dbapi as driver

        self._database = f"SHOP_{uuid.uuid4().hex.upper()}"
        options = {
            "adbc.snowflake.sql.uri.host": "127.0.0.1",
            "adbc.snowflake.sql.uri.port": str(port),
            "adbc.snowflake.sql.uri.protocol": "http",
        }
        settings = {
            "account": "fakesnow",
            "user": "fake",
            "password": "snow",
            "database": self._database,
            "driver_options": options,
        }
        self.location = Location(SnowflakeTables, settings)
        account = "account: my_organization-my_account"
        self.examples = {
            account: f"account: fakesnow\n            driver_options: {json.dumps(options)}",
            "database: SHOP": f"database: {self._database}",
            "shop.octogen": "octogen",
        }
        login = {
            "username": "fake",
            "password": "snow",
            "adbc.snowflake.sql.account": "fakesnow",
            "adbc.snowflake.sql.db": self._database,
            **options,
        }
        self._reader = driver.connect(db_kwargs=login, autocommit=True)

    def query(self, sql: str) -> list[Row]:
        with self._reader.cursor() as cursor:
            cursor.execute(sql)
            # By Polars: the driver's own rows have times of pandas where that is installed.
            rows = pl.DataFrame(cursor.fetch_arrow_table()).to_dicts()
        return [{name.lower(): value for name, value in row.items()} for row in rows]

    def rows(self, table: str) -> list[Row]:
        # Of a time with a zone that is null, fakesnow tells the driver the beginning of 1970.
        times = [name for name, kind in self.types(table).items() if kind == "TIMESTAMP_TZ"]
        if not times:
            return super().rows(table)
        is_null = ", ".join(f'"{name.upper()}" IS NULL AS "NO {name.upper()}"' for name in times)
        found = self.query(f"SELECT *, {is_null} FROM {self.schema}.{table}")
        for row in found:
            row |= {name: None for name in times if row.pop(f"no {name}")}
        return [{name: _value(value) for name, value in row.items()} for row in found]

    def quoted(self, name: str) -> str:
        return f'"{name.upper()}"'

    def types(self, table: str) -> dict[str, str]:
        return {name.lower(): kind for name, kind in super().types(table).items()}

    def comments(self, table: str) -> dict[str, str]:
        (found,) = self.query(
            "SELECT comment AS text FROM information_schema.tables "
            f"WHERE table_name = '{table.upper()}'"
        )
        return {"": found["text"]}

    def close(self) -> None:
        self._reader.close()


class SQLite(Warehouse):
    """The destination of examples/own_destination."""

    schema = "main"
    marks = ()
    has_comments = False
    _values: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        "BOOLEAN": bool,
        "DATE": date.fromisoformat,
        "DATETIME": datetime.fromisoformat,
        "DECIMAL TEXT": Decimal,
        "TIME": time_of_day.fromisoformat,
        "TIMESTAMP": datetime.fromisoformat,
    }

    def __init__(self, folder: Path) -> None:
        self.path = folder / "octogen.sqlite"
        self.location = Location(SQLiteTables, {"path": str(self.path)})

    def query(self, sql: str) -> list[Row]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql)]

    def rows(self, table: str) -> list[Row]:
        values = {name: self._values.get(kind, _value) for name, kind in self.types(table).items()}
        return [
            {name: None if each is None else values[name](each) for name, each in row.items()}
            for row in self.query(f"SELECT * FROM {table}")
        ]

    def types(self, table: str) -> dict[str, str]:
        found = self.query(f"SELECT name, type FROM pragma_table_info('{table}')")
        return {row["name"]: row["type"] for row in found}

    def comments(self, table: str) -> dict[str, str]:
        return {}


ENGINES: Mapping[str, type[Warehouse]] = {
    "duckdb": DuckDB,
    "sqlite": SQLite,
    "iceberg": Iceberg,
    "delta": Delta,
    "postgres": Postgres,
    "bigquery": BigQuery,
    "snowflake": Snowflake,
}
"""Each engine that the tests of tables run with; a new destination is registered here."""


def _value(value: Any) -> Any:
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC)
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value
