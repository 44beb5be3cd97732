from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    Facet,
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_catalogs_asset,
    build_products_asset,
    catalog_partition_key,
    catalog_partitions,
)
from octogen_dagster.frames.scan import ProductScan
from octogen_dagster.sandbox.faults import Fault
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


def test_every_field_of_a_search_can_be_changed_in_the_launchpad(
    resources: dict[str, Any], shops: Sandbox
) -> None:
    filters = {
        "q": "boots",
        "facets": [{"name": "gender", "values": ["male"]}],
        "price_min": 3.0,
        "price_max": 400.0,
        "understand": True,
        "exclude_facets": [{"name": "pattern", "values": ["floral"]}],
        "omit_generated_facets": ["color"],
        "fallback_category": ["apparel & accessories"],
        "brand_quality_min": 2.0,
        "brand_quality_max": 5.0,
        "similar_to_brands": ["Acme"],
        "relax": True,
    }
    rest = {"catalogs": ["strada"], "page_size": 50, "max_products": 20}
    assert filters.keys() | rest.keys() == ProductSearch.model_fields.keys()
    products = build_products_asset("products", retry_policy=dg.RetryPolicy(max_retries=3))
    config = {"ops": {"products": {"config": filters | rest}}}
    result = dg.materialize(
        [products], resources=resources, run_config=config, raise_on_error=False
    )
    assert last_search(shops) == filters | {"catalog": "strada", "limit": 20}
    assert (
        "Catalog 'strada': the service speaks the older contract, which has no understand, "
        "exclude_facets, omit_generated_facets, fallback_category, brand_quality_min, "
        "brand_quality_max, similar_to_brands, relax (422)."
    ) in failure(result)
    searches = [each for each in shops.requests if each.path == "/products/search"]
    assert len(searches) == 1


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


def test_a_wrong_key_fails_and_says_what_to_check(
    tmp_path: Path, resources: dict[str, Any], shops: Sandbox
) -> None:
    resources["octogen"] = OctogenResource(api_key="octo_live_wrong", base_url=shops.base_url)
    with pytest.raises(dg.Failure, match=r"401 Invalid API key.*OCTO_API_KEY"):
        dg.materialize([build_products_asset("products")], resources=resources)
    assert list(tmp_path.rglob("*")) == []


def test_without_a_key_definitions_load_and_the_run_says_what_to_do(
    resources: dict[str, Any], shops: Sandbox
) -> None:
    resources["octogen"] = OctogenResource(base_url=shops.base_url)
    products = build_products_asset("products")
    dg.Definitions.validate_loadable(dg.Definitions(assets=[products], resources=resources))
    with pytest.raises(dg.Failure, match=r"set OCTOGEN_PLATFORM_API_KEY .*octogen-dagster sandbox"):
        dg.materialize([products], resources=resources)


def test_the_current_generation_needs_no_setting(tmp_path: Path) -> None:
    with Sandbox(catalogs={"northpeak": 120}, generation="current") as sandbox:
        resources = {
            "octogen": OctogenResource(api_key=sandbox.api_key, base_url=sandbox.base_url),
            "io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path)),
        }
        search = ProductSearch(catalogs=["northpeak"])
        result = dg.materialize([build_products_asset("products", search)], resources=resources)
        assert value(result, "products", "dagster/row_count") == 120

        result = dg.materialize([build_catalogs_asset()], resources=resources, raise_on_error=False)
        assert "OctogenResource(catalogs=ShopCatalogs(hosts=[...]))" in failure(result)


def test_a_search_in_partitions_of_catalogs_must_not_name_catalogs() -> None:
    with pytest.raises(ValueError, match="Asset 'products': each partition is a catalog"):
        build_products_asset(
            "products", ProductSearch(catalogs=["acme"]), partitions_def=catalog_partitions
        )


def test_a_long_read_logs_its_progress(
    resources: dict[str, Any],
    shops: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    instance: dg.DagsterInstance,
) -> None:
    monkeypatch.setattr(ProductScan, "report_interval_seconds", 0.0)
    shops.inject(Fault("latency", 0.05, path="/products/search"))  # or it ends before a line is due
    shops.grant("big", products=1_500)
    products = build_products_asset("products", ProductSearch(catalogs=["big"]))
    result = dg.materialize([products], resources=resources, instance=instance)

    lines = [
        record.user_message
        for record in instance.all_logs(result.run_id)
        if record.user_message.startswith("Catalog 'big'")
    ]
    halfway = [line for line in lines if line.startswith("Catalog 'big': 1,000 of 1,500 products")]
    # A page may be charged and not yet counted.
    assert all(" in 10 pages, $0.1" in line and " of about $0.2" in line for line in halfway)
    assert any(line.endswith(" s left") for line in lines)
    assert lines[-1].startswith("Catalog 'big': 1,500 of 1,500 products in 15 pages, $0.21, ")


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


def test_a_passing_error_is_retried(resources: dict[str, Any], shops: Sandbox) -> None:
    shops.inject(Fault("restart_cursor", page=2, times=1))
    products = build_products_asset(
        "products",
        ProductSearch(catalogs=["northpeak"], page_size=50),
        retry_policy=dg.RetryPolicy(max_retries=1),
    )
    result = dg.materialize([products], resources=resources)
    assert [event for event in result.all_events if event.is_step_up_for_retry]
    assert value(result, "products", "dagster/row_count") == 230
