"""Tests of what a run's log says while the service does not answer."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    PRODUCT_SCHEMA,
    OctogenResource,
    ProductScan,
    ProductSearch,
    build_catalogs_asset,
    build_product_details_asset,
    build_products_asset,
)
from tests.results import stored, warnings

ACME = ProductSearch(catalogs=["acme"])


@pytest.fixture
def octogen() -> OctogenResource:
    """A resource whose address is wrong: nothing listens at the port."""
    return OctogenResource(api_key="octo_x", base_url="http://127.0.0.1:1/v1", attempts=2)


@dg.asset
def search(octogen: OctogenResource) -> ProductScan:
    return octogen.scan(ACME)


@dg.asset
def listed() -> pl.DataFrame:
    product = {"uuid": "a", "product_url": "https://acme.example/a"}
    return pl.DataFrame([product], schema=PRODUCT_SCHEMA)


@pytest.mark.parametrize(
    "asset",
    [
        build_catalogs_asset(),
        build_products_asset("products", retry_policy=dg.RetryPolicy(max_retries=0)),
        search,
        build_product_details_asset(listed),
    ],
    ids=lambda asset: asset.key.to_user_string(),
)
def test_a_wrong_address_is_told_once_before_the_run_fails(
    asset: dg.AssetsDefinition,
    octogen: OctogenResource,
    instance: dg.DagsterInstance,
    tmp_path: Path,
) -> None:
    resources = stored(tmp_path, octogen)
    dg.materialize([listed], instance=instance, resources=resources)
    run = dg.materialize(
        [asset, listed],
        selection=[asset],
        instance=instance,
        resources=resources,
        raise_on_error=False,
    )
    assert not run.success
    lines = warnings(instance, run)
    [line] = [line for line in lines if "The request is repeated in" in line]
    assert f"no complete response from {octogen.base_url} (" in line
