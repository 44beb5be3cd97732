"""Builders take a name or a `dagster.AssetSpec`, and a search or a mapping of its fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

import octogen_dagster as o

PRODUCTS = o.build_products_asset("products", partitions_def=o.catalog_partitions)
DATASETS = o.build_linked_datasets_asset()

BUILDERS: dict[str, Callable[[dg.AssetSpec], dg.AssetsDefinition]] = {
    "products": o.build_products_asset,
    "catalogs": o.build_catalogs_asset,
    "changes": lambda spec: o.build_product_changes_asset(PRODUCTS, name=spec),
    "details": lambda spec: o.build_product_details_asset(PRODUCTS, name=spec),
    "brands": lambda spec: o.build_product_brands_asset(PRODUCTS, name=spec),
    "linked_datasets": o.build_linked_datasets_asset,
    "linked_products": lambda spec: o.build_linked_products_asset(DATASETS, name=spec),
    "linked_snapshot": lambda spec: o.build_linked_snapshot_asset(DATASETS, name=spec),
}
INPUTS = {"changes": PRODUCTS, "details": PRODUCTS, "brands": PRODUCTS} | dict.fromkeys(
    ("linked_products", "linked_snapshot"), DATASETS
)


@pytest.mark.parametrize("kind", BUILDERS)
def test_an_asset_is_what_its_spec_says(kind: str) -> None:
    eager = dg.AutomationCondition.eager()
    spec = dg.AssetSpec(
        ["shop", "mine"],
        deps=["other"],
        description="Mine.",
        metadata={"own": 1},
        group_name="shop",
        code_version="2",
        automation_condition=eager,
        owners=["team:data"],
        tags={"cost": "low"},
        kinds={"snowflake"},
    ).with_io_manager_key("store")
    asset = BUILDERS[kind](spec)
    built = asset.get_asset_spec()
    assert built.key == spec.key
    assert {dep.asset_key for dep in built.deps} == {
        dg.AssetKey("other"),
        *(INPUTS[kind].keys if kind in INPUTS else ()),
    }
    for name in ("description", "group_name", "code_version", "owners", "tags"):
        assert getattr(built, name) == getattr(spec, name)
    assert built.automation_condition == eager
    assert built.metadata["own"] == 1
    assert "store" in asset.required_resource_keys
    assert all(check.asset_key == spec.key for check in asset.check_specs)


@pytest.mark.parametrize("kind", BUILDERS)
def test_what_a_spec_leaves_unset_is_the_builders(kind: str) -> None:
    def visible(asset: dg.AssetsDefinition) -> dict[str, Any]:
        spec = asset.get_asset_spec()
        metadata = {key for key in spec.metadata if key != "dagster/code_references"}
        return {
            **spec._asdict(),
            "metadata": metadata,
            "pool": asset.op.pool,
            "checks": asset.check_specs_by_output_name,
        }

    named = BUILDERS[kind]("mine")  # type: ignore[arg-type]
    assert visible(BUILDERS[kind](dg.AssetSpec("mine"))) == visible(named)


def test_partitions_may_be_of_the_spec() -> None:
    spec = dg.AssetSpec("products", partitions_def=o.catalog_partitions)
    assert o.build_products_asset(spec).partitions_def == o.catalog_partitions


def test_a_search_is_a_mapping_of_its_fields() -> None:
    asset = o.build_products_asset("boots", {"q": "boots", "price_max": 200})
    (spec,) = asset.specs
    assert spec.metadata["octogen/search"].value == {
        "q": "boots",
        "price_max": 200,
        "page_size": 100,
    }
    with pytest.raises(ValidationError, match="Did you mean 'price_max'"):
        o.build_products_asset("boots", {"price_maximum": 200})


def test_a_name_that_dagster_refuses_is_told_with_one_that_it_takes() -> None:
    with pytest.raises(ValueError, match=r"Asset 'boots-2': .* write boots_2$"):
        o.build_products_asset("boots-2", {"q": "boots"})
