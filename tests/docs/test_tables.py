"""docs/tables.md: its queries in each engine, and its dbt source, destination and dlt pipeline."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pytest
import yaml

from octogen_dagster import build_product_history_asset, build_table_asset
from octogen_dagster.components import OctogenComponent
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.tables import (
    BigQueryTables,
    DeltaTables,
    DuckDBTables,
    IcebergTables,
    PostgresTables,
    SnowflakeTables,
)
from octogen_dagster.tables.destination import TableDestination
from tests.docs.blocks import BLOCKS, ROOT
from tests.docs.dbt import make_project, run, upstream
from tests.histories import QUIET, day, product
from tests.promises.tables.table_runs import products_frame
from tests.results import stored
from tests.warehouses import ENGINES, Postgres, Warehouse

GUIDES = {
    "postgres": "postgres",
    "snowflake": "snowflake",
    "bigquery": "bigquery",
    "duckdb": "duckdb-or-motherduck",
    "delta": "iceberg-or-delta",
    "iceberg": "iceberg-or-delta",
}
"""The guide of each engine."""


def block(language: str, title: str, page: str = "docs/tables.md") -> str:
    wanted = (page, language, title)
    [found] = [each.source for each in BLOCKS if (each.page, each.language, each.title) == wanted]
    return found


def boot(uuid: str, price: float, size: str, **values: Any) -> dict[str, Any]:
    image = {"url": f"https://www.acme.example/{uuid}.jpg"}
    own = {"catalog_key": "acme", "brand": {"name": "Acme"}, "sizes": [size], "images": [image]}
    return {**product(uuid, price), **own, **values}


def make_tables(folder: Path, destination: TableDestination) -> None:
    """Make the tables of the page: a catalog as it is now, and its history since November 1."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    hat = boot("hat", 20.0, "40")
    days = {
        day(1): [boot("dress", 120.0, "38"), hat],
        yesterday: [boot("dress", 96.0, "38", original_price=120.0), hat],
    }
    frames = [products_frame(rows, fetched_at=pl.lit(at)) for at, rows in days.items()]

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["acme"]))
    def octogen_products() -> pl.DataFrame:
        return frames.pop(0)

    history = build_product_history_asset(octogen_products)
    tables = [build_table_asset(each, destination) for each in (octogen_products, history)]
    for _ in days:
        dg.materialize(
            [octogen_products, history, *tables],
            partition_key="acme",
            resources=stored(folder),
            run_config=QUIET,
        )


DESTINATIONS: dict[str, list[TableDestination]] = {
    "postgres": [PostgresTables(uri=dg.EnvVar("WAREHOUSE"))],
    "snowflake": [
        SnowflakeTables(
            account="my_organization-my_account",
            user="LOADER",
            private_key=dg.EnvVar("SNOWFLAKE_PRIVATE_KEY"),
            database="SHOP",
            warehouse="LOADING",
            role="LOADER",
        )
    ],
    "bigquery": [BigQueryTables(project="my-project", dataset="octogen", location="EU")],
    "delta": [DeltaTables(base_dir="lake"), DeltaTables(base_dir="s3://my-bucket/lake")],
    "iceberg": [
        IcebergTables(warehouse="lake"),
        IcebergTables(
            catalog="prod",
            properties={"uri": "https://catalog.example", "token": dg.EnvVar("CATALOG_TOKEN")},
        ),
    ],
    "duckdb": [DuckDBTables(database="shop.duckdb"), DuckDBTables(database="md:shop")],
}


def guides() -> Iterator[dict[str, Any]]:
    """Yield each destination that a guide has in YAML."""
    for each in BLOCKS:
        if each.page.startswith("docs/to-") and each.language == "yaml":
            written = yaml.safe_load(each.source)
            [search] = written.get("attributes", {}).get("searches", [{"tables": written}])
            yield search["tables"]["destination"]


@pytest.mark.parametrize("destination", list(guides()), ids=str)
def test_each_destination_is_written_in_yaml_as_in_python(destination: dict[str, Any]) -> None:
    tables = {"destination": destination, "of": ["products"]}
    component = OctogenComponent.from_attributes_dict(
        attributes={"searches": [{"name": "boots", "tables": tables}]}
    )
    (search,) = component.searches
    assert search.tables
    [engine] = destination
    assert dict(search.tables.destination) in map(dict, DESTINATIONS[engine])


@pytest.mark.slow
def test_the_rows_of_a_deleted_partition_are_deleted(postgres_server: Any, tmp_path: Path) -> None:
    with closing(Postgres(postgres_server)) as warehouse:
        make_tables(tmp_path, warehouse.destination)
        assert warehouse.rows("octogen_products")
        assert len(warehouse.rows("_octogen_loads")) == 2
        warehouse.execute(block("sql", "postgres: deleted"))
        assert not warehouse.rows("octogen_products")
        (noted,) = warehouse.rows("_octogen_loads")
        assert noted["table_name"] == "octogen_products_history"


@pytest.mark.slow
@pytest.mark.parametrize(
    "warehouse",
    [pytest.param(name, marks=ENGINES[name].marks) for name in DESTINATIONS],
    indirect=True,
)
def test_the_example_queries_are_answered(warehouse: Warehouse, tmp_path: Path) -> None:
    make_tables(tmp_path, warehouse.destination)

    def answer(question: str, page: str = "docs/tables.md") -> list[dict[str, Any]]:
        sql = block("sql", question, page).strip().rstrip(";")
        rows = warehouse.query(sql.replace("octogen.octogen_", f"{warehouse.schema}.octogen_"))
        return [{name.lower(): value for name, value in row.items()} for row in rows]

    [catalog] = answer("catalogs")
    assert (catalog["products"], catalog["in_stock"], catalog["reduced"]) == (2, 2, 1)
    [dress] = answer("cheaper")
    assert (dress["title"], dress["old_price"], dress["price"]) == ("Dress", 120.0, 96.0)
    prices = {row["uuid"]: row["current_price"] for row in answer("day")}
    assert prices == {"dress": 120.0, "hat": 20.0}
    guide = GUIDES[warehouse.destination.kind]
    [dress] = answer("size.sql", f"docs/to-{guide}.md")
    assert dress["image"] == "https://www.acme.example/dress.jpg"


@pytest.mark.world
def test_dbt_has_the_tables_as_sources_in_the_graph(
    dbt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_tables(tmp_path, DuckDBTables(database="shop.duckdb"))
    model = block("sql", "models/brand_prices.sql")
    make_project({"brand_prices": model}, block("yaml", "models/sources.yml"))
    run(dbt, "build", "--profiles-dir", ".")
    with duckdb.connect("shop.duckdb") as connection:
        rows = connection.sql("SELECT brand_name, lowest_price FROM brand_prices").fetchall()
    assert rows == [("Acme", 20.0)]
    assert upstream(dbt) == "octogen_products_table"


@pytest.mark.long
def test_dlt_replaces_the_rows_of_a_catalog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    monkeypatch.chdir(tmp_path)
    catalogs = {"acme": 30, "zen": 20}
    instance.add_dynamic_partitions("octogen_catalogs", list(catalogs))
    with Sandbox(catalogs=catalogs) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        defs = runpy.run_path(str(ROOT / "examples/dlt_tables/products_by_dlt.py"))["defs"]
        job = defs.resolve_implicit_global_asset_job_def()
        for key in ["acme", "zen", "acme"]:
            job.execute_in_process(
                instance=instance,
                partition_key=key,
                asset_selection=[dg.AssetKey("octogen_products"), dg.AssetKey("loaded_products")],
            )
    with duckdb.connect("shop.duckdb") as connection:
        counted = connection.sql(
            "SELECT catalog_key, count(*) FROM octogen.octogen_products GROUP BY ALL"
        ).fetchall()
    assert dict(counted) == catalogs
