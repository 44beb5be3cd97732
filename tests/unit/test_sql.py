"""Names and values from outside are one name and one value in a statement of each engine."""

from typing import Any

import pytest
import sqlglot
from sqlglot import expressions

from octogen_dagster.tables.bigquery import BigQueryConnection
from octogen_dagster.tables.duckdb import DuckDBConnection
from octogen_dagster.tables.postgres import PostgresConnection
from octogen_dagster.tables.snowflake import SnowflakeConnection

HOSTILE = ["a'; DROP TABLE b; --", 'a" b', "a` b", "a\\", "a\\' b", "a\\` b", "\n\r/*"]
ENGINES: dict[str, Any] = {
    "bigquery": BigQueryConnection,
    "duckdb": DuckDBConnection,
    "postgres": PostgresConnection,
    "snowflake": SnowflakeConnection,
}


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("dialect", ENGINES)
def test_a_statement_has_the_name_and_the_value_that_were_meant(dialect: str, text: str) -> None:
    kind = ENGINES[dialect]
    engine = kind.__new__(kind)  # these methods need no connection
    statement = f"SELECT 1 FROM t WHERE {engine.quoted(text)} = {engine.literal(text)}"
    (parsed,) = sqlglot.parse(statement, dialect=dialect)
    assert parsed
    where = parsed.find(expressions.EQ)
    assert where
    assert (where.left.name, where.right.name) == (text, text)
