"""Assets of queries over linked products: how they are defined, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_gcp import BigQueryResource

from octogen_dagster.bigquery.linked_products import build_linked_products_asset
from octogen_dagster.bigquery.linked_products_query import query_linked_products
from octogen_dagster.errors import OctogenBigQueryError
from tests.bigquery.job_server import JobServer
from tests.bigquery.rest_api import PROJECT, connected

LISTINGS = dg.DynamicPartitionsDefinition(name="octogen_listings")


@dg.asset
def linked() -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
    return dg.MaterializeResult(
        metadata={"dagster/table_name": f"{PROJECT}.octogen_acme.products_current_v1"}
    )


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
    with pytest.raises(ValueError, match=r"^max_bytes_billed must be a positive number of bytes, "):
        query(max_bytes_billed=0)
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


def test_a_query_beyond_the_limit_is_not_run(tmp_path: Path) -> None:
    dataset = {
        "datasetReference": {"projectId": PROJECT, "datasetId": "analytics"},
        "location": "US",
    }
    server = JobServer(datasets={"analytics": dataset}, estimate=3_000)
    with connected(server, tmp_path), pytest.raises(OctogenBigQueryError) as caught:
        dg.materialize(
            [linked, query(max_bytes_billed=2_000)],
            resources={"bigquery": BigQueryResource(project=PROJECT)},
        )
    assert str(caught.value).startswith(
        f"The query into {PROJECT}.analytics.brands, in location US: it reads 3,000 bytes by "
        "BigQuery's estimate, and max_bytes_billed is 2,000. It was not run"
    )
    assert not server.inserted
