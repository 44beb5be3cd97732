"""The asset of linked products: how it is defined, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster_gcp import BigQueryResource

from octogen_dagster.bigquery.linked_products import build_linked_products_asset
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


def test_a_maximum_age_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^max_age must be a positive timedelta or None, not"):
        build_linked_products_asset(linked, max_age=timedelta(0))


def test_a_limit_that_is_not_positive_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^max_bytes_billed must be a positive whole number of bytes, "
    ):
        build_linked_products_asset(linked, max_bytes_billed=-1)


def test_the_rows_of_a_view_are_counted_within_the_limit(tmp_path: Path) -> None:
    view = {
        "tableReference": {"projectId": PROJECT, "datasetId": "octogen_acme", "tableId": "view"},
        "type": "VIEW",
        "location": "US",
    }
    server = JobServer(tables={"octogen_acme.products_current_v1": view})
    products = build_linked_products_asset(
        linked, max_age=None, max_bytes_billed=2_000, dollars_per_tib=1_000_000
    )

    def run() -> dg.ExecuteInProcessResult:
        resources = {"bigquery": BigQueryResource(project=PROJECT)}
        return dg.materialize([linked, products], resources=resources)

    with connected(server, tmp_path):
        result = run()
        server.estimate = 3_000
        with pytest.raises(dg.Failure, match=r"reads 3,000 bytes .*billed is 2,000\. "):
            run()
    (event,) = result.asset_materializations_for_node("octogen_linked_products")
    metadata = {name: value.value for name, value in event.metadata.items()}
    (body,) = server.inserted
    assert metadata["octogen/job_id"] == body["jobReference"]["jobId"]
    assert metadata["octogen/billed_bytes"] == 10 * 2**20
    assert metadata["octogen/query_dollars"] == pytest.approx(9.536743)
    assert body["configuration"]["query"]["maximumBytesBilled"] == "2000"
    assert body["configuration"]["labels"] == {
        "dagster_asset": "octogen_linked_products",
        "dagster_run": result.run_id,
    }


def test_names_pool_group_and_checks_are_those_of_the_other_assets() -> None:
    products = build_linked_products_asset(
        linked_datasets, key_prefix="shop", owners=["team:data"], max_age=None
    )
    spec = products.get_asset_spec()
    assert products.key == dg.AssetKey(["shop", "octogen_linked_products"])
    assert (products.op.pool, spec.group_name, spec.owners) == (None, "octogen", ["team:data"])
    assert spec.kinds == {"octogen", "bigquery"}
    assert products.partitions_def == LISTINGS
    assert [dep.asset_key for dep in spec.deps] == [linked_datasets.key]
    assert {key.name for key in products.check_keys} == {"not_empty", "expected_columns"}


def test_without_credentials_a_run_says_how_to_log_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(dg.Failure) as caught:
        dg.materialize(
            [linked, build_linked_products_asset(linked)],
            resources={"bigquery": BigQueryResource(project=PROJECT)},
        )
    assert str(caught.value).startswith(
        "BigQuery: there are no Google credentials (Your default credentials were not found"
    )
    assert str(caught.value).endswith(
        "Run `gcloud auth application-default login`, or give credentials to the BigQuery resource."
    )


@pytest.mark.slow
def test_defining_the_assets_imports_nothing_of_google() -> None:
    program = (
        "import sys, octogen_dagster.bigquery.linked_products_query; "
        "heavy = {'google.cloud', 'google.api_core', 'dagster_gcp', 'pandas', 'pyarrow'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
