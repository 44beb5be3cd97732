"""A snapshot in a bucket is complete or it is not there, in S3 and in Google Cloud Storage."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import ProductSearch, build_products_asset, catalog_days
from octogen_dagster.errors import OctogenSnapshotError
from tests.promises.paged_service import PagedService
from tests.results import failure, octogen_at
from tests.servers.buckets import ENVIRONMENT, S3Bucket

PAGES = 116
NOWHERE = "http://127.0.0.1:1"
PRODUCTS = build_products_asset(
    "products", ProductSearch(catalogs=["acme"], page_size=2), retry_policy=None
)


@pytest.fixture
def service() -> Iterator[PagedService]:
    with PagedService({"acme": 2 * PAGES}).running() as service:
        yield service


def run(
    bucket: S3Bucket, service: PagedService, *assets: dg.AssetsDefinition, **settings: Any
) -> dg.ExecuteInProcessResult:
    service.searches.clear()
    resources = {
        "octogen": octogen_at(service, attempts=1),
        "io_manager": bucket.io_manager(**settings),
    }
    return dg.materialize([PRODUCTS, *assets], resources=resources, raise_on_error=False)


def publish(bucket: S3Bucket, frame: pl.DataFrame, **settings: Any) -> None:
    context = dg.build_output_context(asset_key="made")
    bucket.io_manager(**settings).handle_output(context, frame)


def load(bucket: S3Bucket) -> pl.LazyFrame:
    kind = dg.PythonObjectDagsterType(pl.LazyFrame)
    context = dg.build_input_context(asset_key="made", dagster_type=kind)
    frame: pl.LazyFrame = bucket.io_manager().load_input(context)
    return frame


def incompressible(rows: int, seed: int) -> pl.DataFrame:
    numbers = random.Random(seed)
    return pl.DataFrame({"n": range(rows), "noise": [numbers.random() for _ in range(rows)]})


def test_the_first_day_of_a_catalog_asks_little_of_the_store(
    bucket: S3Bucket, service: PagedService, instance: dg.DagsterInstance
) -> None:
    now = datetime.now(UTC)
    days = catalog_days(f"{now - timedelta(days=60):%Y-%m-%d}")
    products = build_products_asset("products", partitions_def=days, retry_policy=None)
    instance.add_dynamic_partitions("octogen_catalogs", ["acme"])
    asked = len(bucket.proxy.heads)
    result = dg.materialize(
        [products],
        resources={"octogen": octogen_at(service), "io_manager": bucket.io_manager()},
        instance=instance,
        partition_key=dg.MultiPartitionKey({"catalog": "acme", "day": f"{now:%Y-%m-%d}"}),
    )
    assert result.success
    assert len(bucket.proxy.heads) - asked <= 20


def test_a_store_that_denies_access_is_an_error_before_anything_is_read(
    bucket: S3Bucket, service: PagedService
) -> None:
    bucket.proxy.is_denied = True
    failed = failure(run(bucket, service))
    assert f"The snapshot {bucket.base_dir}/products.parquet cannot be read" in failed
    assert "credentials have access" in failed
    assert "Debug source" not in failed
    assert service.searches == []


def test_a_store_that_is_down_is_an_error(bucket: S3Bucket) -> None:
    options = {
        name: NOWHERE if name.endswith("_url") else value for name, value in bucket.options.items()
    }
    with pytest.raises(OctogenSnapshotError, match=r"cannot be read: .*is reachable"):
        publish(bucket, pl.DataFrame({"n": [1]}), storage_options=options)


def test_a_broken_upload_leaves_the_snapshot_as_it_was(bucket: S3Bucket) -> None:
    before = incompressible(10, seed=1)
    publish(bucket, before)
    bucket.proxy.max_sent = 100_000
    with pytest.raises(
        OctogenSnapshotError,
        match=rf"^The snapshot {bucket.base_dir}/made\.parquet could not be published, .+ bucket",
    ):
        publish(bucket, incompressible(50_000, seed=2))
    bucket.proxy.reset()
    assert bucket.names() == ["snapshots/made.parquet"]
    assert load(bucket).collect().equals(before)
    after = incompressible(50_000, seed=3)
    publish(bucket, after)
    assert load(bucket).collect().equals(after)


PUBLISHING = """
import json, sys
import dagster as dg
import polars as pl
from octogen_dagster import ParquetSnapshotIOManager

base_dir, options = sys.argv[1], json.loads(sys.argv[2])
manager = ParquetSnapshotIOManager(base_dir=base_dir, storage_options=options)
frame = pl.DataFrame({"n": range(1_000_000)}).with_columns(noise=pl.col("n").hash())
print("publishing", flush=True)
manager.handle_output(dg.build_output_context(asset_key="made"), frame)
"""


def publishing(bucket: S3Bucket) -> subprocess.Popen[str]:
    """Start a process that uploads 8 MB."""
    options = {
        name: {"env": value.env_var_name} if isinstance(value, dg.EnvVar) else value
        for name, value in bucket.options.items()
    }
    arguments = [sys.executable, "-c", PUBLISHING, bucket.base_dir, json.dumps(options)]
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True)


def wait_for_upload(bucket: S3Bucket, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not any(head.startswith((b"PUT", b"POST")) for head in bucket.proxy.heads):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_a_killed_upload_leaves_the_snapshot_as_it_was(bucket: S3Bucket) -> None:
    publish(bucket, pl.DataFrame({"n": [1, 2]}))
    bucket.proxy.heads.clear()
    with publishing(bucket) as process:
        wait_for_upload(bucket, process)
        process.kill()
    assert load(bucket).select(pl.len()).collect().item() in (2, 1_000_000)
    publish(bucket, pl.DataFrame({"n": [3]}))
    assert load(bucket).collect()["n"].to_list() == [3]


@pytest.mark.long
def test_an_interrupt_ends_an_upload_that_hangs(bucket: S3Bucket) -> None:
    bucket.proxy.heads.clear()
    with socket.create_server(("127.0.0.1", 0)) as silent, publishing(bucket) as process:
        upstream, bucket.proxy.upstream = bucket.proxy.upstream, silent.getsockname()[1]
        try:
            deadline = time.monotonic() + 60
            while not bucket.proxy.heads:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=10) != 0
        finally:
            bucket.proxy.upstream = upstream


@pytest.mark.slow
def test_a_read_that_died_is_continued_from_the_bucket(
    bucket: S3Bucket, service: PagedService
) -> None:
    def fail(_key: str, page: int, products: list[dict[str, Any]]) -> None:
        if page == 90:
            products[0]["currentPrice"] = "a lot"

    service.change = fail
    assert not run(bucket, service).success
    assert bucket.names()
    assert all(name.startswith("snapshots/.products.pages/") for name in bucket.names())

    service.change = PagedService.change
    assert run(bucket, service).success
    assert service.pages_of("acme") == [*range(90, PAGES + 1)]
    assert bucket.names() == ["snapshots/products.parquet"]


@pytest.mark.slow
def test_a_bucket_that_refuses_saved_pages_for_a_while_keeps_no_snapshot_from_it(
    bucket: S3Bucket, service: PagedService
) -> None:
    def refuse_for_a_while(_key: str, page: int, _products: list[dict[str, Any]]) -> None:
        if page == 40:
            bucket.proxy.is_denied = True
        elif page == 100:
            assert bucket.proxy.has_denied.wait(30)
            bucket.proxy.is_denied = False

    service.change = refuse_for_a_while
    result = run(bucket, service)
    assert result.success
    assert len(service.searches) == PAGES
    assert bucket.names() == ["snapshots/products.parquet"]


def test_a_query_requests_only_what_it_needs(bucket: S3Bucket) -> None:
    stored = incompressible(200_000, seed=4).with_columns(more=pl.col("noise") * 2)
    publish(bucket, stored)
    frame = load(bucket)
    size = len(bucket.get("snapshots/made.parquet"))
    assert size > 3_000_000

    def received_by(query: pl.LazyFrame) -> tuple[pl.DataFrame, float]:
        before = bucket.proxy.received
        result = query.collect()
        return result, (bucket.proxy.received - before) / size

    result, share = received_by(frame.select("n"))
    assert result.equals(stored.select("n"))
    assert share < 0.2
    result, share = received_by(frame.filter(pl.col("n") < 50))
    assert result.equals(stored.head(50))
    assert share < 0.2  # one row group of ten
    result, share = received_by(frame)
    assert result.equals(stored)
    assert share < 1.1


@pytest.mark.long
@pytest.mark.timeout(120, method="thread")
@pytest.mark.parametrize("count", [120, pytest.param(300, marks=pytest.mark.long)])
def test_hundreds_of_partitions_are_one_frame_that_is_not_of_two_states(
    bucket: S3Bucket, count: int
) -> None:
    names = [str(number) for number in range(count)]
    many = dg.AssetSpec("many", partitions_def=dg.StaticPartitionsDefinition(names))

    def put(name: str, number: int) -> None:
        file = io.BytesIO()
        pl.DataFrame({"n": [number]}).write_parquet(file)
        bucket.put(f"snapshots/many/{name}.parquet", file.getvalue())

    for name in names:
        put(name, 1)

    @dg.asset
    def down(many: pl.LazyFrame) -> None:
        asked = len(bucket.proxy.heads)
        assert many.select(pl.len()).collect().item() == count
        assert len(bucket.proxy.heads) - asked <= 3 * count + 100
        put("110", 22)
        for query in (many, many.filter(pl.col("n") > 1).head(1)):
            with pytest.raises(OctogenSnapshotError, match=r"110\.parquet was replaced while it"):
                query.collect()

    assert dg.materialize([many, down], resources={"io_manager": bucket.io_manager()}).success


def test_a_frame_of_a_snapshot_that_is_replaced_is_not_of_two_states(bucket: S3Bucket) -> None:
    publish(bucket, incompressible(1000, seed=5))
    frame = load(bucket)
    publish(bucket, incompressible(1000, seed=6))
    with pytest.raises(
        OctogenSnapshotError,
        match=r"made\.parquet was replaced while it was being read\. Try again",
    ):
        frame.collect()
