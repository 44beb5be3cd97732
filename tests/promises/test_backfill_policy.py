"""A run has one partition: a backfill policy is refused when definitions load."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from octogen_dagster import (
    build_linked_datasets_asset,
    build_linked_products_asset,
    build_linked_snapshot_asset,
    build_product_brands_asset,
    build_product_changes_asset,
    build_product_details_asset,
    build_products_asset,
    catalog_days,
    catalog_partitions,
    listing_partitions,
)

Builder = Callable[..., dg.AssetsDefinition]

with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.BetaWarning)
    POLICIES = [
        dg.BackfillPolicy.single_run(),
        dg.BackfillPolicy.multi_run(10),
        dg.BackfillPolicy.multi_run(1),  # Dagster gives its runs a range of one partition
    ]


def builders() -> dict[str, Builder]:
    """Every builder of an asset with partitions, by the name of its asset."""
    products = build_products_asset("products", partitions_def=catalog_partitions)
    linked = build_linked_datasets_asset(partitions_def=listing_partitions)

    def catalogs(**arguments: Any) -> dg.AssetsDefinition:
        return build_products_asset("catalogs", partitions_def=catalog_partitions, **arguments)

    def days(**arguments: Any) -> dg.AssetsDefinition:
        return build_products_asset("days", partitions_def=catalog_days("2026-11-01"), **arguments)

    def following(build: Callable[..., dg.AssetsDefinition], of: dg.AssetsDefinition) -> Builder:
        return lambda **arguments: build(of, **arguments)

    return {
        "catalogs": catalogs,
        "days": days,
        "products_changes": following(build_product_changes_asset, products),
        "products_details": following(build_product_details_asset, products),
        "products_brands": following(build_product_brands_asset, products),
        "octogen_linked_datasets": build_linked_datasets_asset,
        "octogen_linked_products": following(build_linked_products_asset, linked),
        "octogen_linked_snapshot": following(build_linked_snapshot_asset, linked),
    }


@pytest.mark.parametrize("policy", POLICIES, ids=["single run", "ten in a run", "one in a run"])
@pytest.mark.parametrize(("name", "build"), builders().items(), ids=builders().keys())
def test_a_backfill_policy_is_refused(name: str, build: Builder, policy: dg.BackfillPolicy) -> None:
    with pytest.raises(ValueError, match=f"Asset '{name}' takes one partition in each run"):
        build(backfill_policy=policy)
    assert build(backfill_policy=None).key.path == [name]


def test_a_policy_without_partitions_says_nothing_and_is_accepted() -> None:
    products = build_products_asset("products", backfill_policy=POLICIES[0])
    assert products.partitions_def is None
