"""docs/tables.md: its queries in each engine, and its dbt source, destination and dlt pipeline."""

from __future__ import annotations

import re
import runpy
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pytest

from octogen_dagster import build_product_history_asset, build_table_asset, tables
from octogen_dagster.components import OctogenComponent
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.tables import DuckDBTables, TableDestination
from tests.docs.blocks import BLOCKS, GUIDE_OF, ROOT, destinations
from tests.docs.dbt import make_project, run, upstream
from tests.histories import QUIET, day, product
from tests.promises.tables.table_runs import products_frame
from tests.results import stored
from tests.warehouses import ENGINES, Postgres, Warehouse

BUILT_IN = [
    each
    for name in dir(tables)
    if isinstance(each := getattr(tables, name), type) and issubclass(each, TableDestination)
    if hasattr(each, "kind")
]
"""The destinations of the package."""

BRAND_PRICES = """
select brand_name, min(current_price) as lowest_price
from {{ source("octogen", "octogen_products") }}
group by brand_name
"""


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


def in_python(value: Any) -> Any:
    """A value of the YAML as Python has it."""
    if isinstance(value, dict):
        return {name: in_python(each) for name, each in value.items()}
    variable = re.fullmatch(r"\{\{ env\.(\w+) \}\}", value)
    return dg.EnvVar(variable[1]) if variable else value


@pytest.mark.parametrize("destination", [each for _, each in destinations()], ids=str)
def test_each_destination_is_written_in_yaml_as_in_python(destination: dict[str, Any]) -> None:
    tables = {"destination": destination, "of": ["products"]}
    component = OctogenComponent.from_attributes_dict(
        attributes={"searches": [{"name": "boots", "tables": tables}]}
    )
    (search,) = component.searches
    assert search.tables
    [(kind, written)] = destination.items()
    (found,) = [each for each in BUILT_IN if each.kind == kind]
    fields = written if isinstance(written, dict) else {next(iter(found.model_fields)): written}
    assert dict(search.tables.destination) == dict(found(**in_python(fields)))


def test_each_destination_has_a_guide_and_an_engine_for_the_tests() -> None:
    kinds = {each.kind for each in BUILT_IN}
    assert kinds == GUIDE_OF.keys()
    assert kinds <= ENGINES.keys()


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
    [pytest.param(name, marks=ENGINES[name].marks) for name in GUIDE_OF],
    indirect=True,
)
def test_the_example_queries_are_answered(warehouse: Warehouse, tmp_path: Path) -> None:
    make_tables(tmp_path, warehouse.destination)

    def answer(question: str, page: str = "docs/tables.md") -> list[dict[str, Any]]:
        sql = block("sql", question, page).strip().rstrip(";")
        rows = warehouse.query(sql.replace("octogen.octogen_", f"{warehouse.schema}.octogen_"))
        return [{name.lower(): value for name, value in row.items()} for row in rows]

    [dress] = answer("cheaper")
    assert (dress["title"], dress["old_price"], dress["price"]) == ("Dress", 120.0, 96.0)
    [dress] = answer("size.sql", GUIDE_OF[warehouse.destination.kind])
    assert dress["image"] == "https://www.acme.example/dress.jpg"


@pytest.mark.world
def test_dbt_has_the_tables_as_sources_in_the_graph(
    dbt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_tables(tmp_path, DuckDBTables(database="shop.duckdb"))
    make_project({"brand_prices": BRAND_PRICES}, block("yaml", "models/sources.yml"))
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
