"""Snapshots in buckets of Google Cloud Storage and S3, against real servers."""

import asyncio
import random
import socket
from types import SimpleNamespace
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster.api.search import ProductSearch
from octogen_dagster.doctor.snapshot_place import check_snapshot_place
from octogen_dagster.errors import (
    OctogenPagingError,
    OctogenSnapshotError,
)
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots.changes import build_product_changes_asset
from octogen_dagster.snapshots.resource import OctogenResource
from tests.promises.paged_service import PagedService
from tests.snapshots.stores import Store


@dg.asset
def products(octogen: OctogenResource) -> Any:
    return octogen.scan(ProductSearch(catalogs=["northpeak"], page_size=20))


@dg.asset(name="products")
def small_pages(octogen: OctogenResource) -> Any:
    return octogen.scan(ProductSearch(catalogs=["northpeak"], page_size=2))


@dg.asset
def titles(products: pl.LazyFrame) -> pl.DataFrame:
    return products.select("title").collect()


def test_a_snapshot_is_stored_in_the_bucket_and_loaded(
    store: Store, octogen: OctogenResource
) -> None:
    resources = {"octogen": octogen, "io_manager": store.io_manager()}
    result = dg.materialize([products, titles], resources=resources)

    assert result.output_for_node("titles").height == 230
    assert store.objects() == ["snapshots/products.parquet", "snapshots/titles.parquet"]
    (event,) = result.asset_materializations_for_node("products")
    assert event.metadata["dagster/uri"].value == f"{store.base_dir}/products.parquet"


def test_a_failed_read_leaves_the_existing_object_unchanged(
    store: Store, octogen: OctogenResource, shops: Sandbox
) -> None:
    resources = {"octogen": octogen, "io_manager": store.io_manager()}
    dg.materialize([products], resources=resources)
    shops.inject(Fault("loop_cursor", page=8))
    with pytest.raises(OctogenPagingError):
        dg.materialize([products], resources=resources)

    shops.clear_faults()
    shops.revoke("northpeak")
    result = dg.materialize([products.to_source_asset(), titles], resources=resources)
    assert result.output_for_node("titles").height == 230


def test_a_missing_bucket_is_an_error_that_says_what_to_do_and_is_not_made(
    store: Store, octogen: OctogenResource
) -> None:
    nowhere = f"{store.protocol}://nowhere-{store.bucket}"
    io_manager = store.io_manager(base_dir=f"{nowhere}/snapshots")
    with pytest.raises(
        OctogenSnapshotError,
        match=rf"{nowhere}/snapshots/products\.parquet could not be .*Check that the bucket is",
    ):
        io_manager.handle_output(
            dg.build_output_context(asset_key="products"), pl.DataFrame({"n": [1]})
        )
    with pytest.raises(OctogenSnapshotError, match=f"Pages cannot be saved to {nowhere}/"):
        dg.materialize([small_pages], resources={"octogen": octogen, "io_manager": io_manager})
    assert [name for name in store.fs.ls("") if "nowhere" in name] == []


def test_a_read_that_died_is_continued_from_the_bucket(
    store: Store, octogen: OctogenResource, shops: Sandbox
) -> None:
    resources = {"octogen": octogen, "io_manager": store.io_manager()}
    shops.inject(Fault("status", 403, page=90))
    with pytest.raises(dg.Failure, match="403"):
        dg.materialize([small_pages], resources=resources)
    saved = store.objects()
    assert len(saved) == 9  # eight segments and their record
    assert all(name.startswith("snapshots/.products.pages/") for name in saved)

    shops.clear_faults()
    before = len(shops.requests)
    result = dg.materialize([small_pages, titles], resources=resources)
    assert result.output_for_node("titles").height == 230
    searches = [each for each in shops.requests[before:] if each.path == "/products/search"]
    assert [search.page for search in searches] == [*range(90, 116)]
    assert store.objects() == ["snapshots/products.parquet", "snapshots/titles.parquet"]


def test_a_bucket_that_refuses_saved_pages_for_a_while_keeps_no_snapshot_from_it(
    store: Store,
) -> None:
    def refuse_for_a_while(_key: str, page: int, _products: list[dict[str, Any]]) -> None:
        if page == 40:
            store.proxy.is_denied = True
        elif page == 100:
            assert store.proxy.has_denied.wait(30)
            store.proxy.is_denied = False

    service = PagedService({"northpeak": 240}, change=refuse_for_a_while)
    with service.running(), dg.DagsterInstance.ephemeral() as instance:
        octogen = OctogenResource(api_key=service.api_key, base_url=service.base_url)
        resources = {"octogen": octogen, "io_manager": store.io_manager()}
        result = dg.materialize([small_pages], resources=resources, instance=instance)
        logged = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert len(service.searches) == 120
    assert len([line for line in logged if "saves no more pages" in line]) == 1
    assert store.objects() == ["snapshots/products.parquet"]


def test_the_previous_snapshot_is_kept_in_the_bucket(
    store: Store, octogen: OctogenResource, shops: Sandbox
) -> None:
    changes = build_product_changes_asset(products)
    resources = {"octogen": octogen, "io_manager": store.io_manager()}
    dg.materialize([products], resources=resources)
    shops.grant("northpeak", products=226)
    result = dg.materialize([products, changes], resources=resources)

    (event,) = result.asset_materializations_for_node("products_changes")
    assert event.metadata["octogen/disappeared"].value == 4
    assert "snapshots/.products.previous" in store.objects()


def by_hand(store: Store, frame: pl.DataFrame | None = None) -> pl.LazyFrame:
    """Store a frame with the IO manager alone if one is given, and load the snapshot."""
    io_manager = store.io_manager()
    if frame is not None:
        io_manager.handle_output(dg.build_output_context(asset_key="made"), frame)
    context = dg.build_input_context(
        asset_key="made", dagster_type=dg.PythonObjectDagsterType(pl.LazyFrame)
    )
    loaded: pl.LazyFrame = io_manager.load_input(context)
    return loaded


def incompressible(rows: int, seed: int) -> pl.DataFrame:
    numbers = random.Random(seed)
    return pl.DataFrame({"n": range(rows), "noise": [numbers.random() for _ in range(rows)]})


async def no_wait(_seconds: float) -> None:
    """Stand in for `asyncio.sleep`."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clients of object stores not wait between attempts, which takes half a minute."""
    import gcsfs
    import s3fs

    hasty = SimpleNamespace(**{**vars(asyncio), "sleep": no_wait})
    monkeypatch.setattr(gcsfs.core, "asyncio", hasty)
    monkeypatch.setattr(gcsfs.retry, "asyncio", hasty)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.mark.usefixtures("impatient")
def test_a_broken_upload_leaves_the_existing_object_unchanged(store: Store) -> None:
    before = incompressible(10, seed=1)
    by_hand(store, before)
    store.proxy.max_sent = 100_000
    with pytest.raises(
        OctogenSnapshotError,
        match=rf"^The snapshot {store.base_dir}/made\.parquet could not be published\. Readers see "
        r"the old one: .+ Check that the bucket is there",
    ):
        by_hand(store, incompressible(50_000, seed=2))
    store.proxy.reset()
    assert store.objects() == ["snapshots/made.parquet"]
    assert by_hand(store).collect().equals(before)
    after = incompressible(50_000, seed=3)
    assert by_hand(store, after).collect().equals(after)


@pytest.mark.usefixtures("impatient")
def test_a_store_that_denies_access_is_an_error_before_anything_is_read(
    store: Store, octogen: OctogenResource, shops: Sandbox
) -> None:
    store.proxy.is_denied = True
    store.fs.invalidate_cache()
    context = dg.build_output_context(asset_key="products")
    with pytest.raises(
        OctogenSnapshotError,
        match=rf"^The snapshot {store.base_dir}/products\.parquet cannot be read: .*"
        "that the credentials may use it",
    ):
        store.io_manager().handle_output(context, octogen.scan(ProductSearch(q="jacket")))
    assert shops.requests == []


@pytest.mark.usefixtures("impatient")
def test_a_store_that_is_down_is_an_error(store: Store) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        io_manager = store.io_manager(storage_options={**store.options, "endpoint_url": url})
        context = dg.build_output_context(asset_key="made")
        with pytest.raises(OctogenSnapshotError, match=r"cannot be read: .*store can be reached"):
            io_manager.handle_output(context, pl.DataFrame({"n": [1]}))


def test_a_query_requests_only_what_it_needs(store: Store) -> None:
    stored = incompressible(200_000, seed=4).with_columns(more=pl.col("noise") * 2)
    frame = by_hand(store, stored)
    size = store.fs.size(store.path("made.parquet").path)
    assert size > 3_000_000

    def received_by(query: pl.LazyFrame) -> tuple[pl.DataFrame, float]:
        before = store.proxy.received
        result = query.collect()
        return result, (store.proxy.received - before) / size

    result, share = received_by(frame.select("n"))
    assert result.equals(stored.select("n"))
    assert share < 0.2
    result, share = received_by(frame.filter(pl.col("n") < 50))
    assert result.equals(stored.head(50))
    assert share < 0.2  # one row group of ten
    result, share = received_by(frame.head(3))
    assert result.equals(stored.head(3))
    assert share < 0.2
    result, share = received_by(frame)
    assert result.equals(stored)
    assert share < 1.1


def test_a_frame_of_a_snapshot_that_is_replaced_is_not_of_two_states(store: Store) -> None:
    frame = by_hand(store, incompressible(1000, seed=5))
    by_hand(store, incompressible(1000, seed=6))
    with pytest.raises(
        OctogenSnapshotError, match=r"made\.parquet was replaced while it was read\. Run it again"
    ):
        frame.collect()


def test_an_object_that_is_no_snapshot_is_named(store: Store) -> None:
    store.path("made.parquet").write_bytes(b"no Parquet" * 100)
    with pytest.raises(OctogenSnapshotError, match=r"made\.parquet is not a snapshot or is damag"):
        by_hand(store)
    assert by_hand(store, pl.DataFrame({"n": [1]})).collect()["n"].to_list() == [1]


def test_a_limit_counts_before_or_after_a_filter_as_it_is_written(store: Store) -> None:
    frame = by_hand(store, pl.DataFrame({"n": range(10)}))
    odd = pl.col("n") % 2 == 1
    assert frame.head(4).filter(odd).collect()["n"].to_list() == [1, 3]
    assert frame.filter(odd).head(4).collect()["n"].to_list() == [1, 3, 5, 7]


def test_the_error_of_a_query_is_not_taken_for_one_of_the_store(store: Store) -> None:
    frame = by_hand(store, pl.DataFrame({"text": ["1", "x"]}))
    kinds = (pl.exceptions.PolarsError, pl.exceptions.PanicException)  # Polars 2.0 panics
    with pytest.raises(kinds, match="conversion from `str` to `i64` failed"):
        frame.filter(pl.col("text").cast(pl.Int64) > 0).collect()


@pytest.mark.parametrize("key", ["a/b", "../x", "50% #1?.é"])
def test_names_are_taken_literally(store: Store, key: str) -> None:
    partitions = dg.StaticPartitionsDefinition([key])
    context = dg.build_output_context(
        asset_key="made", partition_key=key, asset_partitions_def=partitions
    )
    io_manager = store.io_manager()
    io_manager.handle_output(context, pl.DataFrame({"n": [1]}))
    file = io_manager._places(context).own
    assert file.scan().collect()["n"].to_list() == [1]
    assert len(store.objects()) == 1


def test_the_doctor_tries_the_bucket_and_leaves_it_as_it_was(store: Store) -> None:
    (finding,) = check_snapshot_place(store.io_manager())
    assert finding.message.startswith("a file was written, put, read back and deleted at")
    assert store.objects() == []


def test_the_doctor_names_what_a_missing_bucket_fails(store: Store) -> None:
    nowhere = store.io_manager(base_dir=f"{store.protocol}://nowhere-{store.bucket}/snapshots")
    with pytest.raises(OctogenSnapshotError, match="Check that the bucket is there"):
        list(check_snapshot_place(nowhere))
