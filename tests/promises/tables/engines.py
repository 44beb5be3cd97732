"""The fixture of an empty database or warehouse of each engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.warehouses import (
    FAKESNOW,
    BigQuery,
    Delta,
    DuckDB,
    Iceberg,
    Postgres,
    Snowflake,
    Warehouse,
    running_bigquery,
    running_snowflake,
)

FILES: dict[str, Any] = {"duckdb": DuckDB, "iceberg": Iceberg, "delta": Delta}
POLARS = tuple(map(int, pl.__version__.split(".")[:2]))
needs_iceberg = pytest.mark.skipif(POLARS < (2, 1), reason="needs Polars 2.1")
needs_bigquery = pytest.mark.skipif(
    "LOCAL_BIGQUERY" not in os.environ,
    reason="needs the BigQuery emulator: see tests/servers/bigquery_emulator.sh",
)
needs_snowflake = pytest.mark.skipif(
    not FAKESNOW, reason="needs fakesnow: see tests/servers/snowflake_emulator.sh"
)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[dict[str, str]]:
    from tests.postgresql import running_postgresql

    with running_postgresql() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: dict[str, str]) -> Iterator[Postgres]:
    """An empty database of PostgreSQL."""
    with closing(Postgres(postgres_server)) as postgres:
        yield postgres


@pytest.fixture(scope="session")
def bigquery_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with running_bigquery(tmp_path_factory.mktemp("bigquery")) as variables:
        yield variables


@pytest.fixture(scope="session")
def snowflake_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running_snowflake(tmp_path_factory.mktemp("snowflake")) as port:
        yield port


@pytest.fixture(
    params=[
        "duckdb",
        pytest.param("iceberg", marks=[pytest.mark.slow, needs_iceberg]),
        pytest.param("delta", marks=pytest.mark.slow),
        pytest.param("postgres", marks=pytest.mark.slow),
        pytest.param("bigquery", marks=[pytest.mark.world, needs_bigquery]),
        pytest.param("snowflake", marks=[pytest.mark.world, needs_snowflake]),
    ]
)
def warehouse(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Warehouse]:
    """An empty database or warehouse of each engine."""
    if own := FILES.get(request.param):
        yield own(tmp_path)
    elif request.param == "postgres":
        yield request.getfixturevalue("postgres")
    elif request.param == "bigquery":
        variables = request.getfixturevalue("bigquery_server")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield BigQuery(variables)
    else:
        with closing(Snowflake(request.getfixturevalue("snowflake_server"))) as snowflake:
            yield snowflake
