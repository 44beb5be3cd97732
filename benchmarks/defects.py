"""One figure of a defect that was mended, as a program that also runs with the code before it.

`python -m benchmarks.defects FIGURE` prints the figure. It uses only what both have.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    ShopCatalogs,
    build_product_details_asset,
    build_products_asset,
    catalog_days,
    catalog_partitions,
)
from octogen_dagster.errors import OctogenError
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import RawServer, Received, http
from tests.promises.paged_service import PagedService

_LOOKUP_USD = 0.002


def pages_of_a_catalog_indexed_before_its_read() -> float:
    """The pages of two catalogs of five, where the second is indexed while the first is read."""
    service = _Listed({"first": 25, "second": 25})

    def index_again(key: str, page: int, _products: list[dict[str, Any]]) -> None:
        if (key, page) == ("first", 3):
            service.indexed_at["second"] = "2026-11-26T05:00:00Z"

    service.change = index_again
    _run_of_catalogs(service, page_size=5, concurrency=1)
    return len(service.searches)


def lists_of_a_run_of_many() -> float:
    """The lists of catalogs that a run of 40 catalogs of one page asks for."""
    service = _Listed({f"shop{number:02}": 25 for number in range(40)})
    _run_of_catalogs(service, page_size=50, concurrency=8)
    return service.lists


def dollars_of_details_with_another_schema() -> float:
    """The price of the details of 1,000 products of which ten changed, after a column more."""
    with Sandbox(catalogs={"strada": 1_000}) as sandbox, _folder() as folder:
        octogen = OctogenResource(api_key=sandbox.api_key, base_url=sandbox.base_url)
        products = octogen.scan(ProductSearch(catalogs=["strada"])).frame.collect()

        def details_of(snapshot: pl.DataFrame) -> float:
            @dg.asset(name="products")
            def given() -> pl.LazyFrame:
                return snapshot.lazy()

            details = build_product_details_asset(given, name="details", only_changed=True)
            before = len(sandbox.requests)
            _materialize([given, details], octogen, folder)
            asked = [each.path for each in sandbox.requests[before:]]
            return asked.count("/products/lookup") * _LOOKUP_USD

        details_of(products)
        stored = pl.read_parquet(folder / "details.parquet")
        stored.with_columns(more=pl.lit("of another version")).write_parquet(
            folder / "details.parquet"
        )
        is_changed = pl.int_range(pl.len()) < 10
        title = pl.when(is_changed).then(pl.lit("Another")).otherwise("title")
        return details_of(products.with_columns(title.alias("title")))


def seconds_of_a_deadline_of_one() -> float:
    """The seconds until a list of 20 shops ends that has one, at a rate limit of 60 a minute."""

    def respond(_request: Received) -> list[bytes]:
        return http(500, x_ratelimit_limit="60", x_ratelimit_remaining="0")

    hosts = [f"shop{number}.example" for number in range(20)]
    with RawServer(respond) as server:
        octogen = OctogenResource(
            api_key=server.api_key,
            base_url=server.base_url,
            attempts=1,
            deadline=1.0,
            catalogs=ShopCatalogs(hosts=hosts),
        )
        began = time.perf_counter()
        try:
            octogen.list_catalogs()
        except OctogenError:
            return time.perf_counter() - began
    raise AssertionError("the service answered nothing")


def requests_a_second_of_a_full_line() -> float:
    """The turns a second that 16 threads get where eight may be in flight, for 5 ms each."""
    from octogen_dagster.api.flow import Wait, request_flow
    from octogen_dagster.api.http import Response

    octogen = OctogenResource(api_key="octo_live_benchmark", base_url="http://127.0.0.1:9")
    service = octogen.service()
    service.limiter.in_flight.cap(8)
    ends_at = time.perf_counter() + 3
    sent = [0] * 16

    def drive(place: int) -> None:
        while time.perf_counter() < ends_at:
            flow = request_flow(service, "GET", "/me", "The account")
            answer: Response | None = None
            try:
                while True:
                    step = flow.send(answer)
                    answer = None
                    if isinstance(step, Wait):
                        _wait(step)
                    else:
                        time.sleep(0.005)
                        answer = Response(200, {}, b"{}", step.request)
            except StopIteration:
                sent[place] += 1

    with ThreadPoolExecutor(len(sent)) as pool:
        list(pool.map(drive, range(len(sent))))
    return sum(sent) / 3


def _wait(step: Any) -> None:
    """Wait as the drivers do: for a turn, or for seconds."""
    until = getattr(step, "until", None)
    if until is None:
        time.sleep(step.seconds)
    else:
        until.result()


def runs_read_for_a_backfill_budget() -> float:
    """The runs that the third run of a backfill reads, which 200 others of it preceded."""
    tags = {"dagster/backfill": "abc"}
    with (
        Sandbox(catalogs={"strada": 50}) as sandbox,
        _folder() as folder,
        dg.DagsterInstance.local_temp(str(folder)) as instance,
    ):
        octogen = OctogenResource(
            api_key=sandbox.api_key, base_url=sandbox.base_url, backfill_budget_usd=100.0
        )
        for _ in range(200):
            spent = {**tags, "octogen/spent_usd.products": "0.1"}
            instance.add_run(
                dg.DagsterRun(job_name="job", status=dg.DagsterRunStatus.SUCCESS, tags=spent)
            )
        _age_runs(folder)
        products = build_products_asset("products", ProductSearch(catalogs=["strada"]))
        read: list[int] = []

        def counting(get: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **options: Any) -> Any:
                found = get(*arguments, **options)
                read.append(len(found))
                return found

            return counted

        for name in ("get_runs", "get_run_records"):
            setattr(instance, name, counting(getattr(instance, name)))
        for _ in range(3):
            read.clear()
            _materialize([products], octogen, folder / "stored", instance, tags=tags)
        return sum(read)


def _age_runs(folder: Path) -> None:
    import sqlite3

    with sqlite3.connect(folder / "history" / "runs.db") as runs:
        runs.execute("UPDATE runs SET update_timestamp = datetime('now', '-1 hour')")


def store_requests_of_a_first_day() -> float:
    """The requests to the store for the first day of a catalog with `catalog_days`."""
    from tests.servers.buckets import ENVIRONMENT, S3Bucket, moto

    os.environ |= ENVIRONMENT
    now = datetime.now(timezone.utc)
    days = catalog_days(f"{now - timedelta(days=60):%Y-%m-%d}")
    products = build_products_asset("products", partitions_def=days)
    with moto() as proxy, _Listed({"acme": 25}).running() as service:
        bucket = S3Bucket(proxy)
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions("octogen_catalogs", ["acme"])
            asked = len(proxy.heads)
            dg.materialize(
                [products],
                resources={
                    "octogen": OctogenResource(api_key=service.api_key, base_url=service.base_url),
                    "io_manager": bucket.io_manager(),
                },
                instance=instance,
                partition_key=dg.MultiPartitionKey({"catalog": "acme", "day": f"{now:%Y-%m-%d}"}),
            )
            return len(proxy.heads) - asked


def open_files_of_a_frame() -> float:
    """The files that are open while a frame of 250 snapshots is there."""
    names = [f"shop{number:03}" for number in range(250)]
    counted: list[int] = []

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(names))
    def products() -> None: ...

    @dg.asset
    def together(products: pl.LazyFrame) -> None:
        counted.append(len(os.listdir("/proc/self/fd")))

    with _folder() as folder:
        (folder / "products").mkdir()
        for name in names:
            pl.DataFrame({"uuid": [name]}).write_parquet(folder / "products" / f"{name}.parquet")
        before = len(os.listdir("/proc/self/fd"))
        dg.materialize(
            [products, together],
            selection=[together],
            resources={"io_manager": ParquetSnapshotIOManager(base_dir=str(folder))},
        )
    return counted[0] - before


class _Listed(PagedService):
    """A service that says when each catalog was indexed, and counts how often it lists them."""

    def __init__(self, catalogs: dict[str, int]) -> None:
        super().__init__(catalogs)
        self.indexed_at: dict[str, str] = {}
        self.lists = 0

    def _respond(self, request: Received) -> list[bytes]:
        self.lists += request.target == "/v1/catalogs"
        return super()._respond(request)

    def _state(self, key: str) -> dict[str, Any]:
        state = super()._state(key)
        return state | {"lastIndexedAt": self.indexed_at.get(key, state["lastIndexedAt"])}


def _run_of_catalogs(service: PagedService, *, page_size: int, concurrency: int) -> None:
    keys = list(service.catalogs)
    products = build_products_asset(
        "products",
        ProductSearch(page_size=page_size),
        partitions_def=catalog_partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    with (
        service.running() as server,
        _folder() as folder,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        instance.add_dynamic_partitions("octogen_catalogs", keys)
        octogen = OctogenResource(
            api_key=server.api_key, base_url=server.base_url, concurrency=concurrency
        )
        ends = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
        tags = dict(zip(ends, (keys[0], keys[-1]), strict=True))
        _materialize([products], octogen, folder, instance, tags=tags)


def _materialize(
    assets: Sequence[dg.AssetsDefinition],
    octogen: OctogenResource,
    folder: Path,
    instance: dg.DagsterInstance | None = None,
    **options: Any,
) -> None:
    resources = {"octogen": octogen, "io_manager": ParquetSnapshotIOManager(base_dir=str(folder))}
    dg.materialize(assets, resources=resources, instance=instance, **options)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


FIGURES: Sequence[Callable[[], float]] = (
    pages_of_a_catalog_indexed_before_its_read,
    lists_of_a_run_of_many,
    dollars_of_details_with_another_schema,
    seconds_of_a_deadline_of_one,
    requests_a_second_of_a_full_line,
    runs_read_for_a_backfill_budget,
    store_requests_of_a_first_day,
    open_files_of_a_frame,
)

if __name__ == "__main__":
    (wanted,) = (each for each in FIGURES if each.__name__ == sys.argv[1])
    print(json.dumps(wanted()))
