"""A products asset: what a partition is, and what the launchpad changes."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    Facet,
    ProductSearch,
    build_products_asset,
    catalog_partition_key,
    catalog_partitions,
)
from octogen_dagster.sandbox.server import Sandbox
from tests.results import failure, metadata


def value(result: dg.ExecuteInProcessResult, node: str, name: str) -> Any:
    return metadata(result, node)[name]


@pytest.mark.parametrize("catalog", ["strada", "a/b, c", "../x", "..."])
def test_a_partition_is_a_whole_catalog(
    tmp_path: Path,
    resources: dict[str, Any],
    shops: Sandbox,
    instance: dg.DagsterInstance,
    catalog: str,
) -> None:
    shops.grant(catalog, products=130)
    key = catalog_partition_key(catalog)
    instance.add_dynamic_partitions("octogen_catalogs", [key])
    products = build_products_asset("products", partitions_def=catalog_partitions)

    result = dg.materialize([products], resources=resources, instance=instance, partition_key=key)

    assert value(result, "products", "dagster/partition_row_count") == 130
    (path,) = tmp_path.rglob("*.parquet")
    assert path.parent == tmp_path / "products"
    assert set(pl.read_parquet(path)["catalog_key"]) == {catalog}


def last_search(shops: Sandbox) -> Any:
    return [each.body for each in shops.requests if each.path == "/products/search"][-1]


def test_a_search_is_the_default_of_the_run_configuration(
    resources: dict[str, Any], shops: Sandbox
) -> None:
    search = ProductSearch(
        q="jacket", facets=[Facet(name="gender", values=["male"])], price_max=400
    )
    products = build_products_asset("jackets", search)

    dg.materialize([products], resources=resources)
    body = last_search(shops)
    assert body
    assert body["q"] == "jacket"
    assert body["facets"] == [{"name": "gender", "values": ["male"]}]

    changed = {"ops": {"jackets": {"config": {"q": "boots", "price_min": 3, "max_products": 7}}}}
    dg.materialize([products], resources=resources, run_config=changed)
    body = last_search(shops)
    assert body
    assert (body["q"], body["price_min"], body["price_max"]) == ("boots", 3.0, 400.0)


def test_an_unknown_catalog_fails_with_the_granted_ones_and_is_not_retried(
    resources: dict[str, Any], instance: dg.DagsterInstance, shops: Sandbox
) -> None:
    products = build_products_asset(
        "products",
        ProductSearch(catalogs=["northpeak", "farfetch"]),
        retry_policy=dg.RetryPolicy(max_retries=3),
    )
    result = dg.materialize(
        [products], resources=resources, instance=instance, raise_on_error=False
    )
    assert (
        failure(result)
        .strip()
        .endswith(
            "Catalog 'farfetch' is not granted to this key. Granted: northpeak, strada. Ask "
            "Octogen for access or correct the partition key or the search."
        )
    )
    assert [request.path for request in shops.requests] == ["/catalogs"]


def test_the_catalogs_are_listed_before_a_read_and_after_it_at_most(
    resources: dict[str, Any], instance: dg.DagsterInstance, shops: Sandbox
) -> None:
    products = build_products_asset("products")
    assert dg.materialize([products], resources=resources, instance=instance).success
    paths = [request.path for request in shops.requests]
    assert 1 <= paths.count("/catalogs") <= 2
    assert paths[0] == "/catalogs"


def test_a_search_in_partitions_of_catalogs_must_not_name_catalogs() -> None:
    with pytest.raises(ValueError, match="Asset 'products': each partition is a catalog"):
        build_products_asset(
            "products", ProductSearch(catalogs=["acme"]), partitions_def=catalog_partitions
        )


def test_a_run_whose_partition_was_deleted_fails_before_it_reads(
    resources: dict[str, Any], shops: Sandbox, instance: dg.DagsterInstance
) -> None:
    products = build_products_asset("products", partitions_def=catalog_partitions)
    defs = dg.Definitions(assets=[products], resources=resources)
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, tags={"dagster/partition": "strada"}, raise_on_error=False
    )
    assert "Partition 'strada' of products no longer exists" in failure(result)
    assert shops.requests == []
