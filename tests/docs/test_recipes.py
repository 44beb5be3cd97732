"""The recipes of docs/recipes.md read snapshots in DuckDB and dbt, and write Delta tables."""

from __future__ import annotations

import logging
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.docs.dbt import make_project, run, upstream
from tests.docs.snapshots import CATALOGS, make_snapshots

PAGE = (Path(__file__).parents[2] / "docs/recipes.md").read_text()


@pytest.fixture(autouse=True)
def _snapshots(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    monkeypatch.chdir(tmp_path)
    make_snapshots(instance)


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return found


def materialize(
    word: str, instance: dg.DagsterInstance, *assets: str, partition: str | None = None
) -> None:
    """Materialize assets of the block of Python that has a word."""
    [block] = [each for each in blocks("python") if word in each]
    Path("definitions.py").write_text(block)
    defs = runpy.run_path("definitions.py")["defs"]
    defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(name) for name in assets],
        partition_key=partition,
    )


def test_the_view_has_the_products_of_all_catalogs() -> None:
    view, nested = blocks("sql")
    with duckdb.connect() as connection:
        in_stock = connection.execute(view).fetchall()
        counted = connection.sql("SELECT catalog_key, count(*) FROM products GROUP BY ALL")
        assert dict(counted.fetchall()) == dict(CATALOGS)
        rows = connection.sql(nested).fetchall()
    assert {catalog for catalog, *_ in in_stock} == set(CATALOGS)
    assert {partition for partition, *_ in rows} == set(CATALOGS)
    assert any(" > " in category for _, _, category, _ in rows if category)


@pytest.mark.world
def test_dbt_has_the_snapshots_as_sources_in_the_graph(dbt: Path) -> None:
    [model] = blocks('sql title="models/brands.sql"')
    [source] = blocks('yaml title="models/sources.yml"')
    make_project({"brands": model}, source)
    run(dbt, "build", "--profiles-dir", ".")
    with duckdb.connect("shop.duckdb") as connection:
        rows = "SELECT catalog_key, sum(products) FROM brands GROUP BY ALL"
        assert dict(connection.sql(rows).fetchall()) == dict(CATALOGS)
    assert upstream(dbt) == "octogen_products"


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A sandbox in the environment; dagster-delta changes the root logger."""
    root = logging.getLogger()
    level = root.level
    with Sandbox(catalogs=CATALOGS) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        yield
    root.setLevel(level)


@pytest.mark.slow
@pytest.mark.usefixtures("sandbox")
def test_a_products_asset_writes_into_duckdb(instance: dg.DagsterInstance) -> None:
    for key in [*CATALOGS, *CATALOGS]:
        materialize("dagster_duckdb_polars", instance, "products", partition=key)
    with duckdb.connect("shop.duckdb") as connection:
        rows = "SELECT catalog_key, count(*) FROM shops.products GROUP BY ALL"
        assert dict(connection.sql(rows).fetchall()) == CATALOGS


@pytest.mark.world
@pytest.mark.usefixtures("sandbox")
def test_a_snapshot_and_a_delta_table_live_in_one_project(instance: dg.DagsterInstance) -> None:
    materialize("io_manager_key", instance, "jackets", "prices")
    prices = pl.read_delta("lake/public/prices")
    assert len(prices) == len(pl.read_parquet("snapshots/jackets.parquet")) > 0
