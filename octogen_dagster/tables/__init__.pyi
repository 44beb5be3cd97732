"""Public names of the package, for type checkers and `__init__.py`."""

from .bigquery import BigQueryTables as BigQueryTables
from .delta import DeltaTables as DeltaTables
from .destination import (
    Column as Column,
    ColumnType as ColumnType,
    Load as Load,
    Rows as Rows,
    Table as Table,
    TableConflictError as TableConflictError,
    TableConnection as TableConnection,
    TableDestination as TableDestination,
)
from .duckdb import DuckDBTables as DuckDBTables
from .iceberg import IcebergTables as IcebergTables
from .postgres import PostgresTables as PostgresTables
from .snowflake import SnowflakeTables as SnowflakeTables
from .sql import SQLConnection as SQLConnection
