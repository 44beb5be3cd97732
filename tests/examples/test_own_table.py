"""examples/own_table: a table that this package does not know, whose kind brings what it is."""

import ast
import runpy
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pytest

from octogen_dagster import build_snapshot_checks, build_table_asset
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.schemas import PRODUCT_SCHEMA
from octogen_dagster.tables import DuckDBTables
from tests.docs.blocks import BLOCKS, ROOT
from tests.histories import QUIET, day
from tests.promises.runs.range_runs import single_run
from tests.promises.tables.table_runs import Row, product, products_frame
from tests.promises.yaml.yaml_projects import load, run
from tests.results import failure, stored

EXAMPLE = ROOT / "examples/own_table/discounts.py"
CATALOGS = dg.StaticPartitionsDefinition(["acme", "lodge", "strada"])
PAGE = "docs/own-tables.md"
QUERY = (
    "SELECT brand, products, reduced, discount, partition FROM octogen.discounts ORDER BY discount"
)
START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The names of the example."""
    return runpy.run_path(str(EXAMPLE))


def reduced(number: int, price: float | None, **values: Any) -> Row:
    return product(number, price, day(1), **{"original_price": 100.0, **values})


class Project:
    """The products of a test, by catalog, with their discounts, the table and the checks of these.

    A catalog without products has no snapshot.
    """

    def __init__(self, example: dict[str, Any], folder: Path, products: dict[str, list[Row]]):
        self.folder, self.products = folder, products
        self.instance = dg.DagsterInstance.ephemeral()

        @dg.asset(partitions_def=CATALOGS)
        def shop(context: dg.AssetExecutionContext) -> pl.DataFrame:
            return products_frame(self.products[context.partition_key])

        policy = single_run()
        discounts = example["build_discounts_asset"](shop, backfill_policy=policy)
        destination = DuckDBTables(database=str(folder / "shop.duckdb"))
        self.shop, self.discounts = shop, discounts
        self.checks = build_snapshot_checks(discounts)
        self.table = build_table_asset(discounts, destination, backfill_policy=policy)
        for catalog in products:
            self.publish(catalog)

    def publish(self, catalog: str) -> None:
        dg.materialize(
            [self.shop],
            instance=self.instance,
            partition_key=catalog,
            resources=stored(self.folder),
            run_config=QUIET,
        )

    def run(self, asset: dg.AssetsDefinition, **tags: str) -> dg.ExecuteInProcessResult:
        """Materialize an asset of all catalogs, with its checks."""
        first, *_, last = CATALOGS.get_partition_keys()
        return dg.materialize(
            [self.shop, self.discounts, self.table, *self.checks],
            selection=[asset],
            instance=self.instance,
            tags={START: first, END: last, **tags},
            resources=stored(self.folder),
            run_config=QUIET,
            raise_on_error=False,
        )

    def stored(self, catalog: str) -> list[Row]:
        return pl.read_parquet(self.folder / f"discounts/{catalog}.parquet").to_dicts()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.folder / "shop.duckdb")) as connection:
            return connection.sql(sql).fetchall()


@pytest.fixture
def project(example: dict[str, Any], tmp_path: Path) -> Project:
    half = [reduced(1, 50.0), reduced(2, 100.0)]
    nothing = [reduced(1, 1.0), reduced(2, 3.0, brand={"name": "Zen"}, original_price=None)]
    return Project(example, tmp_path, {"acme": half, "lodge": [], "strada": nothing})


@pytest.mark.slow
def test_a_run_of_several_catalogs_publishes_and_checks_each(project: Project) -> None:
    result = project.run(project.discounts)
    assert result.success
    acme = {"brand": "Acme", "products": 2, "reduced": 1, "discount": 50.0}
    zen = {"brand": "Zen", "products": 1, "reduced": 0, "discount": None}
    assert project.stored("acme") == [acme]
    assert project.stored("lodge") == []
    assert project.stored("strada") == [{**acme, "products": 1, "discount": 99.0}, zen]

    found = {each.partition: each for each in result.get_asset_check_evaluations()}
    assert {key: each.passed for key, each in found.items() if each.check_name == "plausible"} == {
        "acme": True,
        "lodge": True,
        "strada": False,
    }
    said = found["strada"].description or ""
    assert "90 % or more in 1 of 2 rows" in said
    assert said.endswith("Check original prices.")
    assert "Acme" in str(found["strada"].metadata["octogen/sample"])

    events = result.asset_materializations_for_node("discounts")
    shown = {each.partition: each.metadata for each in events}["acme"]
    assert [*shown][:4] == [
        "octogen/summary",
        "octogen/preview",
        "dagster/partition_row_count",
        "octogen/reduced",
    ]
    assert shown["octogen/summary"].value == "Reduced products: **1**"
    lineage: Any = shown["dagster/column_lineage"].value
    (of_brand,) = lineage.deps_by_column["brand"]
    assert (of_brand.asset_key, of_brand.column_name) == (project.shop.key, "brand")


def test_the_asset_says_what_it_is(example: dict[str, Any], tmp_path: Path) -> None:
    project = Project(example, tmp_path, {})
    (spec,) = project.discounts.specs
    assert (
        spec.description == "The number of reduced products and the median discount for each brand."
    )
    columns: Any = spec.metadata["dagster/column_schema"]
    described = {each.name: each.description for each in columns.columns}
    assert described == {name: text for name, (_, text) in example["COLUMNS"].items()}
    names = {key.name for check in project.checks for key in check.check_keys}
    assert names == {"plausible"}


@pytest.mark.slow
def test_its_table_in_duckdb_has_comments_on_its_columns(
    project: Project, example: dict[str, Any]
) -> None:
    checked = project.run(project.discounts)
    for is_loaded in (True, False):
        result = project.run(project.table)
        assert result.success
        events = result.asset_materializations_for_node("discounts_table")
        assert {each.metadata["octogen/loaded"].value for each in events} == {is_loaded}
    rows = project.query(QUERY)
    assert rows == [
        ("Acme", 2, 1, 50.0, "acme"),
        ("Acme", 1, 1, 99.0, "strada"),
        ("Zen", 1, 0, None, "strada"),
    ]
    (failed,) = [each for each in checked.get_asset_check_evaluations() if not each.passed]
    (shown,) = [each for each in BLOCKS if each.page == PAGE and each.language == "text"]
    assert shown.source.split() == (failed.description or "").split()
    comments = project.query(
        "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'discounts'"
    )
    own = {name: text for name, (_, text) in example["COLUMNS"].items()}
    assert dict(comments).items() >= own.items()


@pytest.mark.slow
def test_a_null_in_each_column_of_the_products_is_none_that_counts(
    example: dict[str, Any], tmp_path: Path
) -> None:
    nulls = [reduced(n, 50.0, **{name: None}) for n, name in enumerate(PRODUCT_SCHEMA, 1)]
    unnamed = reduced(0, 20.0, brand={"name": None})
    everything = dict.fromkeys(PRODUCT_SCHEMA)
    products = {
        "acme": [*nulls, unnamed, everything],
        "lodge": [everything],
        "strada": [reduced(1, 0.0, original_price=0.0)],
    }
    project = Project(example, tmp_path, products)
    assert project.run(project.discounts).success
    of_acme = [each for each in nulls if each["brand"]]
    known = [each for each in of_acme if each["current_price"] and each["original_price"]]
    assert project.stored("acme") == [
        {
            "brand": None,
            "products": len(products["acme"]) - len(of_acme),
            "reduced": 2,
            "discount": median([50.0, 80.0]),
        },
        {"brand": "Acme", "products": len(of_acme), "reduced": len(known), "discount": 50.0},
    ]
    assert project.stored("lodge") == [
        {"brand": None, "products": 1, "reduced": 0, "discount": None}
    ]
    assert project.stored("strada") == [
        {"brand": "Acme", "products": 1, "reduced": 0, "discount": None}
    ]
    assert project.run(project.table).success
    assert project.query("SELECT count(*) FROM octogen.discounts") == [(4,)]


@pytest.mark.slow
def test_a_run_that_failed_is_executed_again_with_what_it_lacks(
    example: dict[str, Any], tmp_path: Path
) -> None:
    project = Project(example, tmp_path, {"acme": [reduced(1, 50.0)], "strada": []})
    first = project.run(project.discounts)
    assert "1 of 3 partitions of discounts failed. The other 2 are published" in failure(first)
    assert "lodge" in failure(first)
    written = (tmp_path / "discounts/acme.parquet").stat().st_mtime_ns

    project.products["lodge"] = [reduced(1, 30.0)]
    project.publish("lodge")
    of = {"dagster/parent_run_id": first.run_id, "dagster/root_run_id": first.run_id}
    second = project.run(project.discounts, **of)
    assert second.success
    events = second.asset_materializations_for_node("discounts")
    assert [each.partition for each in events] == ["lodge"]
    assert project.stored("lodge")[0]["discount"] == 70.0
    assert (tmp_path / "discounts/acme.parquet").stat().st_mtime_ns == written


@pytest.fixture
def shops(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(catalogs={"acme": 30}) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        yield sandbox


@pytest.mark.slow
def test_it_is_of_products_of_a_yaml_file_too(
    example: dict[str, Any],
    shops: Sandbox,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    instance.add_dynamic_partitions("octogen_catalogs", ["acme"])
    searches = [{"name": "octogen_products", "partitions": "catalog"}]
    with load({"searches": searches, "storage": {"base_dir": "snapshots"}}) as (_, defs):
        products = defs.get_assets_def("octogen_products")
        discounts = example["build_discounts_asset"](products)
        merged = dg.Definitions.merge(defs, dg.Definitions([discounts]))
        result = run(merged, instance, "octogen_products", partition="acme")
        result = run(merged, instance, "discounts", partition="acme")
    assert result.success
    assert len(result.asset_materializations_for_node("discounts")) == 1


def test_the_reference_has_what_the_example_imports(example: dict[str, Any]) -> None:
    page = "".join(each.read_text() for each in (ROOT / "docs/api").glob("*.md"))
    imports = [
        each for each in ast.parse(EXAMPLE.read_text()).body if isinstance(each, ast.ImportFrom)
    ]
    missing = [
        f"{each.module}.{name.name}"
        for each in imports
        for name in each.names
        if each.module != "typing"
        and f"\n::: {each.module}\n" not in page
        and f"\n::: {each.module}.{name.name}\n" not in page
    ]
    assert missing == []
