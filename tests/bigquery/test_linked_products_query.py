"""Assets of queries over linked products: how they are defined, and what they refuse."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from octogen_dagster.bigquery.linked_products import build_linked_products_asset
from octogen_dagster.bigquery.linked_products_query import query_linked_products

LISTINGS = dg.DynamicPartitionsDefinition(name="octogen_listings")


@dg.asset
def linked() -> None: ...


@dg.asset(partitions_def=LISTINGS)
def linked_datasets() -> None: ...


def query(sql: str = "SELECT * FROM {products}", **arguments: Any) -> dg.AssetsDefinition:
    given = {"name": "q", "linked_products": linked, "destination": "analytics.brands"}
    return query_linked_products(sql, **{**given, **arguments})


def test_a_template_and_a_destination_are_checked_when_the_code_is_loaded() -> None:
    with pytest.raises(ValueError, match=r"^Asset 'q': sql_template must contain \{products\},"):
        query("SELECT * FROM {product}")
    with pytest.raises(ValueError, match=r"^'brands' is not the name of a table: .* <dataset>"):
        query(destination="brands")
    with pytest.raises(ValueError, match=r"destination must contain") as caught:
        query(linked_products=linked_datasets)
    assert str(caught.value) == (
        "Asset 'q': destination must contain {linked_dataset}, or each partition would overwrite "
        "the table of the others: analytics.brands_{linked_dataset}."
    )


def test_names_pool_group_and_partitions_are_those_of_the_other_assets() -> None:
    products = build_linked_products_asset(linked_datasets)
    brands = query(
        linked_products=products, destination="a.b_{linked_dataset}", key_prefix=["shop", "bq"]
    )
    spec = brands.get_asset_spec()
    assert brands.key == dg.AssetKey(["shop", "bq", "q"])
    assert (brands.op.pool, spec.group_name) == (None, "octogen")
    assert spec.kinds == {"octogen", "bigquery"}
    assert brands.partitions_def == LISTINGS
    assert [dep.asset_key for dep in spec.deps] == [products.key]
