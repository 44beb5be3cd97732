"""A backfill policy: which assets take one, and which runs a backfill requests by it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import dagster as dg
import pytest

import octogen_dagster as od

Builder = Callable[..., dg.AssetsDefinition]

with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.BetaWarning)
    POLICIES = [
        dg.BackfillPolicy.single_run(),
        dg.BackfillPolicy.multi_run(10),
        dg.BackfillPolicy.multi_run(1),  # Dagster gives its runs a range of one partition
    ]


def builders() -> dict[str, Builder]:
    """Every builder of an asset with partitions of listings, by the name of its asset."""
    linked = od.build_linked_datasets_asset(partitions_def=od.listing_partitions)

    def following(build: Callable[..., dg.AssetsDefinition]) -> Builder:
        return lambda **arguments: build(linked, **arguments)

    return {
        "octogen_linked_datasets": od.build_linked_datasets_asset,
        "octogen_linked_products": following(od.build_linked_products_asset),
        "octogen_linked_snapshot": following(od.build_linked_snapshot_asset),
    }


@pytest.mark.parametrize("policy", POLICIES, ids=["single run", "ten in a run", "one in a run"])
@pytest.mark.parametrize(("name", "build"), builders().items(), ids=builders().keys())
def test_a_listing_is_a_run_of_its_own(
    name: str, build: Builder, policy: dg.BackfillPolicy
) -> None:
    with pytest.raises(ValueError, match=f"Asset '{name}' supports one partition per run"):
        build(backfill_policy=policy)
    assert build(backfill_policy=None).key.path == [name]


def test_a_policy_without_partitions_says_nothing_and_is_accepted() -> None:
    products = od.build_products_asset("products", backfill_policy=POLICIES[0])
    assert products.partitions_def is None


@pytest.mark.parametrize("policy", POLICIES, ids=["single run", "ten in a run", "one in a run"])
@pytest.mark.parametrize(
    "build",
    [od.build_product_history_asset, od.build_product_details_asset, od.build_product_brands_asset],
)
def test_what_follows_the_products_has_another_policy_and_so_runs_of_its_own(
    build: Callable[..., dg.AssetsDefinition], policy: dg.BackfillPolicy
) -> None:
    products = od.build_products_asset(
        "products", partitions_def=od.catalog_partitions, backfill_policy=policy
    )
    own = build(products, backfill_policy=policy).backfill_policy
    assert own
    assert own != policy
    assert (own.max_partitions_per_run or 0) > (policy.max_partitions_per_run or 1000)
