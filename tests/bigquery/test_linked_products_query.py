"""Assets of queries over linked products: how they are defined, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_gcp import BigQueryResource

from octogen_dagster.bigquery.linked_products import build_linked_products_asset
from octogen_dagster.bigquery.linked_products_query import query_linked_products
from tests.bigquery.job_server import JobServer
from tests.bigquery.rest_api import PROJECT, connected
from tests.results import failure

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
    with pytest.raises(
        ValueError, match=r"^max_bytes_billed must be a positive whole number of bytes, "
    ):
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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[JobServer]:
    dataset = {
        "datasetReference": {"projectId": PROJECT, "datasetId": "analytics"},
        "location": "US",
    }
    server = JobServer(datasets={"analytics": dataset})
    with connected(server, tmp_path):
        yield server


def run(**arguments: Any) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [linked, query(**arguments)],
        resources={"bigquery": BigQueryResource(project=PROJECT)},
        raise_on_error=False,
    )


def test_a_query_beyond_the_limit_is_not_run(server: JobServer) -> None:
    server.estimate = 3_000
    message = failure(run(max_bytes_billed=2_000))
    assert (
        f"The query into {PROJECT}.analytics.brands, in location US: it reads 3,000 bytes by "
        "BigQuery's estimate, and max_bytes_billed is 2,000. It was not run"
    ) in message
    assert not server.inserted


def test_a_job_that_took_too_long_is_not_paid_again_by_a_retry(server: JobServer) -> None:
    server.failures = [{"reason": "stopped", "message": "Job timed out after 6h"}]
    result = run(retry_policy=dg.RetryPolicy(max_retries=2))
    assert "BigQuery refused (200 stopped: Job timed out after 6h). Somebody cancelled" in (
        failure(result)
    )
    assert len(server.inserted) == 1
