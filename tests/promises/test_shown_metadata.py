"""What Dagster shows of the assets: at definition time, and in the events of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    BRANDS_SCHEMA,
    ProductSearch,
    build_catalog_sensor,
    build_catalogs_asset,
    build_product_brands_asset,
    build_product_changes_asset,
    build_product_details_asset,
    build_products_asset,
    build_snapshot_schedule,
    catalog_days,
    catalog_partitions,
)
from octogen_dagster.sandbox.server import Sandbox


def all_assets() -> list[dg.AssetsDefinition]:
    """An asset of each kind, none of them with partitions."""
    products = build_products_asset("products", ProductSearch(max_products=30))
    return [
        build_catalogs_asset("catalogs"),
        products,
        build_product_changes_asset(products, name="changes"),
        build_product_details_asset(products, name="details"),
        build_product_brands_asset(products, name="brands"),
    ]


@pytest.mark.parametrize("asset", all_assets(), ids=lambda asset: asset.key.to_user_string())
def test_an_asset_is_described_before_it_is_materialized(asset: dg.AssetsDefinition) -> None:
    (spec,) = asset.specs
    schema = spec.metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema)
    assert all(column.description for column in schema.columns)
    assert not [column.type for column in schema.columns if len(column.type) > len("list<struct>")]
    assert "A row is a" in (spec.description or "")


def test_a_run_writes_the_metadata_of_an_asset_into_one_event(
    resources: dict[str, Any], instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    result = dg.materialize(all_assets(), resources=resources, instance=instance)
    brands = pl.read_parquet(tmp_path / "brands.parquet")
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


def test_the_tables_made_from_products_say_from_which_columns(
    resources: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    result = dg.materialize(all_assets(), resources=resources, instance=instance)
    for name, column, sources in (
        ("changes", "old_title", ["title"]),
        ("details", "description", ["product_url"]),
        ("brands", "price_p50", ["current_price"]),
    ):
        (materialization,) = result.asset_materializations_for_node(name)
        lineage = materialization.metadata["dagster/column_lineage"].value
        assert isinstance(lineage, dg.TableColumnLineage)
        assert lineage.deps_by_column[column] == [
            dg.TableColumnDep(dg.AssetKey("products"), source) for source in sources
        ]
        schema = materialization.metadata["dagster/column_schema"].value
        assert isinstance(schema, dg.TableSchema)
        assert lineage.deps_by_column.keys() == {column.name for column in schema.columns}


def test_a_list_of_catalogs_is_upstream_and_requests_no_catalog_again(
    resources: dict[str, Any], instance: dg.DagsterInstance, shops: Sandbox
) -> None:
    catalogs = build_catalogs_asset(partitions_def=catalog_partitions)
    products = build_products_asset(
        "products",
        partitions_def=catalog_partitions,
        deps=[catalogs],
        automation_condition=dg.AutomationCondition.eager(),
    )
    assert products.asset_deps[products.key] == {catalogs.key}
    defs = dg.Definitions(assets=[catalogs, products], resources=resources)
    cursor = None

    def requested() -> set[str | None]:
        nonlocal cursor
        dg.materialize([catalogs], resources=resources, instance=instance)
        result = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
        cursor = result.cursor
        return set(result.get_requested_partitions(products.key))

    assert requested() == set()  # a first evaluation requests nothing
    for key in ("northpeak", "strada"):
        dg.materialize([products], resources=resources, instance=instance, partition_key=key)
    assert requested() == set()
    shops.grant("acme", products=3)
    assert requested() == {"acme"}


def test_sensors_and_schedules_say_what_they_request() -> None:
    boots = build_products_asset("boots")
    catalogs = build_products_asset("catalogs", partitions_def=catalog_partitions)
    history = build_products_asset("history", partitions_def=catalog_days("2026-11-01"))
    descriptions = [
        build_snapshot_schedule(asset, "@daily").description for asset in (boots, catalogs, history)
    ]
    assert descriptions == [
        "Requests boots.",
        "Requests catalogs for each catalog that has a partition.",
        "Requests history for each catalog that has a partition, in the partition of the present "
        "time.",
    ]
    assert (build_catalog_sensor(catalogs).description or "").startswith("Requests catalogs for")
    assert build_catalog_sensor(catalogs, description="Mine.").description == "Mine."
    assert build_snapshot_schedule(boots, "@daily", description="Mine.").description == "Mine."
