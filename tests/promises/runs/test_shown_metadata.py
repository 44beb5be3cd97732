"""What Dagster shows of the assets: at definition time, and in the events of a run."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.api.search import FacetName
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.schemas import BRANDS_SCHEMA, CHANGES_SCHEMA, DETAIL_SCHEMA, PRODUCT_SCHEMA
from tests.projects import Project
from tests.results import metadata


def all_assets() -> list[dg.AssetsDefinition]:
    """An asset of each kind, none of them with partitions."""
    products = od.build_products_asset("products", od.ProductSearch(max_products=30))
    history = od.build_product_history_asset(products, name="history")
    return [
        od.build_catalogs_asset("catalogs"),
        products,
        history,
        od.build_product_changes_asset(history, name="changes"),
        od.build_product_details_asset(products, name="details"),
        od.build_product_brands_asset(products, name="brands"),
    ]


@pytest.mark.parametrize("asset", all_assets(), ids=lambda asset: asset.key.to_user_string())
def test_an_asset_is_described_before_it_is_materialized(asset: dg.AssetsDefinition) -> None:
    (spec,) = asset.specs
    schema = spec.metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema)
    assert all(column.description for column in schema.columns)
    assert not [column.type for column in schema.columns if len(column.type) > len("list<struct>")]
    assert " row " in (spec.description or "")


@pytest.mark.slow
def test_a_run_writes_the_metadata_of_an_asset_into_one_event(project: Project) -> None:
    result = project.run(all_assets())
    brands = project.read("brands")
    assert brands.schema == BRANDS_SCHEMA
    assert brands["products"].sum() == 30
    for name in ("catalogs", "products", "changes", "details", "brands"):
        holders = [
            event.event_type_value
            for event in result.events_for_node(name)
            if getattr(event.event_specific_data, "metadata", None)
        ]
        assert holders == []
        (materialization,) = result.asset_materializations_for_node(name)
        assert "octogen/preview" in materialization.metadata


def test_the_tables_made_from_products_say_from_which_columns(project: Project) -> None:
    result = project.run(all_assets())
    for name, of, column, sources in (
        ("changes", "history", "old_title", ["title"]),
        ("details", "products", "description", ["product_url"]),
        ("brands", "products", "price_p50", ["current_price"]),
    ):
        (materialization,) = result.asset_materializations_for_node(name)
        lineage = materialization.metadata["dagster/column_lineage"].value
        assert isinstance(lineage, dg.TableColumnLineage)
        assert lineage.deps_by_column[column] == [
            dg.TableColumnDep(dg.AssetKey(of), source) for source in sources
        ]
        schema = materialization.metadata["dagster/column_schema"].value
        assert isinstance(schema, dg.TableSchema)
        assert lineage.deps_by_column.keys() == {column.name for column in schema.columns}


def test_sensors_and_schedules_say_what_they_request() -> None:
    boots = od.build_products_asset("boots")
    catalogs = od.build_products_asset("catalogs", partitions_def=od.catalog_partitions)
    history = od.build_products_asset("history", partitions_def=od.catalog_days("2026-11-01"))
    descriptions = [
        od.build_snapshot_schedule(asset, "@daily").description
        for asset in (boots, catalogs, history)
    ]
    assert descriptions == [
        "Requests boots.",
        "Requests catalogs for each catalog that has a partition.",
        "Requests history for each catalog that has a partition, in the current time partition.",
    ]
    assert (od.build_catalog_sensor(catalogs).description or "").startswith("Requests catalogs for")
    assert od.build_catalog_sensor(catalogs, description="Mine.").description == "Mine."
    assert od.build_snapshot_schedule(boots, "@daily", description="Mine.").description == "Mine."


def test_columns_of_ones_own_are_described_only_in_a_table_of_products(project: Project) -> None:
    """A median `current_price` is not the price of a product."""
    products = pl.LazyFrame(schema=PRODUCT_SCHEMA)

    @dg.asset
    def cheaper() -> pl.LazyFrame:
        return products.with_columns(discount=0.5)

    @dg.asset
    def medians() -> pl.LazyFrame:
        return products.group_by("catalog_key").agg(pl.col("current_price").median())

    @dg.asset
    def like_brands() -> pl.LazyFrame:
        return pl.LazyFrame(schema=BRANDS_SCHEMA)

    result = project.run([cheaper, medians, like_brands])

    def descriptions(asset: str) -> dict[str, str | None]:
        schema = metadata(result, asset)["dagster/column_schema"]
        return {column.name: column.description for column in schema.columns}

    of_products = {name: text for name, _, text in GOLDEN["products"]}
    assert descriptions("cheaper") == {**of_products, "discount": None}
    assert descriptions("medians") == {"catalog_key": None, "current_price": None}
    assert descriptions("like_brands") == dict.fromkeys(BRANDS_SCHEMA)
    sentences = [metadata(result, asset)["octogen/summary"] for asset in ("cheaper", "like_brands")]
    assert sentences == ["**0 products**", "**0 rows**"]


MADE = "dagster/uri, dagster/column_schema, dagster/column_lineage, octogen/metrics"
READING_ORDER = {
    "products": (
        "octogen/summary, octogen/preview, octogen/trend, octogen/prices, dagster/row_count, "
        "octogen/appeared, octogen/disappeared, octogen/price_changed, "
        "octogen/price_p50_no_currency, octogen/cost_usd, octogen/seconds, octogen/fetched_at, "
        "octogen/truncated, octogen/search, dagster/uri, dagster/column_schema, octogen/metrics"
    ),
    "changes": (
        "octogen/summary, octogen/preview, dagster/row_count, octogen/appeared, "
        "octogen/disappeared, octogen/changed, octogen/title_changed, octogen/price_changed, "
        f"octogen/availability_changed, octogen/first_snapshot, {MADE}"
    ),
    "history": (
        "octogen/summary, octogen/preview, octogen/trend, dagster/row_count, octogen/appeared, "
        "octogen/disappeared, octogen/changed, octogen/median_price_no_currency, "
        f"octogen/snapshots, octogen/reappeared, octogen/current_products, {MADE}"
    ),
}


@pytest.mark.seed
def test_the_entries_have_the_order_in_which_a_person_reads_them(project: Project) -> None:
    products = od.build_products_asset("products", od.ProductSearch(max_products=30))
    history = od.build_product_history_asset(products, name="history")
    changes = od.build_product_changes_asset(history, name="changes")
    first, second = (project.run([products, changes, history]) for _ in range(2))
    # Nothing changes between the two, and a line over snapshots needs two.
    for name, result in {"products": second, "changes": first, "history": second}.items():
        assert ", ".join(metadata(result, name)) == READING_ORDER[name]


# The metadata of a published snapshot, compared with a golden file.


GOLDEN_METADATA: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "golden" / "snapshot_metadata.json").read_text()
)
FETCHED_AT = datetime.fromisoformat(GOLDEN_METADATA["file"]["octogen.fetched_at"])
SEARCH = od.ProductSearch(
    facets=[od.Facet(name=FacetName.GENDER, values=["male"])], price_max=900, page_size=50
)


@pytest.mark.seed
def test_a_snapshot_is_published_with_the_golden_metadata(project: Project, shops: Sandbox) -> None:
    project.instance.add_dynamic_partitions("octogen_catalogs", ["strada"])
    products = od.build_products_asset(
        "products",
        SEARCH,
        od.catalog_partitions,
        key_prefix="shop",
        retry_policy=None,
        _clock=lambda: FETCHED_AT,
    )
    result = project.run([products], partition_key="strada")

    path = project.folder / "shop" / "products" / "strada.parquet"
    stored = {
        name: value
        for name, value in pl.read_parquet_metadata(path).items()
        if name.startswith("octogen")
    }
    own = {name: stored[f"octogen.{name}"] for name in ("snapshot_id", "stored_at")}
    own = {f"octogen.{name}": each for name, each in (own | {"run_id": result.run_id}).items()}
    assert stored == GOLDEN_METADATA["file"] | own
    (event,) = result.asset_materializations_for_node("shop__products")
    assert sorted(event.metadata) == GOLDEN_METADATA["materialization"]


# The columns of snapshots: names, types, order and descriptions are those of the golden file.


GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "schemas.json").read_text())
PRODUCTS = od.build_products_asset("products")
SNAPSHOTS: dict[str, tuple[pl.Schema, Any]] = {
    "products": (PRODUCT_SCHEMA, PRODUCTS),
    "details": (DETAIL_SCHEMA, od.build_product_details_asset(PRODUCTS)),
    "changes": (
        CHANGES_SCHEMA,
        od.build_product_changes_asset(od.build_product_history_asset(PRODUCTS)),
    ),
    "brands": (BRANDS_SCHEMA, od.build_product_brands_asset(PRODUCTS)),
}


def described(schema: pl.Schema, asset: Any) -> list[list[str]]:
    """The name, the type and the description of each column, in order."""
    shown = asset.metadata_by_key[asset.key]["dagster/column_schema"]
    descriptions = {column.name: column.description for column in shown.columns}
    assert [*descriptions] == [*schema]
    return [[name, str(dtype), descriptions[name]] for name, dtype in schema.items()]


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_a_schema_is_the_golden_one(name: str) -> None:
    assert described(*SNAPSHOTS[name]) == GOLDEN[name]
    assert all(text.endswith(".") for _, _, text in GOLDEN[name])
