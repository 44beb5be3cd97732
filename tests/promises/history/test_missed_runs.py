"""Snapshots wait for a history whose runs were missed, whatever asset makes them."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.doctor.checks import diagnose
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots import publication
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.loading import Snapshots
from octogen_dagster.storage.files import Disk
from octogen_dagster.storage.store import Store
from tests.forked import processes
from tests.histories import day, product
from tests.projects import QUIET, given_frame
from tests.promises.sharing.linked import BIGQUERY, linked
from tests.results import materialized, stored
from tests.servers.bigquery import BigQueryServer, serving
from tests.servers.buckets import ENVIRONMENT, S3Bucket

KINDS = ("products", "linked", "table", "table by its key", "frames")
PRICES = [10.0, 5.0, 10.0, 7.0, 12.0]
PROCESS_SECONDS = 120.0


@dataclass
class Shop:
    """An asset of snapshots with one product, and its history."""

    folder: Path
    instance: dg.DagsterInstance
    set_price: Callable[[float, int], None]
    asset: dg.AssetsDefinition
    histories: list[dg.AssetsDefinition]
    resources: dict[str, Any] = field(default_factory=dict)
    product: pl.Expr = field(default_factory=lambda: pl.lit(value=True))
    column: str = "current_price"
    bucket: S3Bucket | None = None

    def move_to(self, bucket: S3Bucket) -> None:
        """Store what follows in a bucket."""
        self.bucket = bucket
        self.resources = {**self.resources, "io_manager": bucket.io_manager()}

    def run(self, asset: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
        return materialized(
            [linked, self.asset, *self.histories],
            self.folder,
            selection=[linked, asset] if asset is self.asset else [asset],
            resources=self.resources,
            instance=self.instance,
            run_config=QUIET,
        )

    def publish(self, price: float, number: int) -> None:
        self.set_price(price, number)
        assert self.run(self.asset).success

    def put_in(self, history: int = 0) -> None:
        assert self.run(self.histories[history]).success

    def prices(self, history: int = 0) -> list[float]:
        """The prices of the product in a history, the oldest first."""
        asset = self.histories[history].key.to_user_string()
        if self.bucket:
            options = {
                name: ENVIRONMENT[value.env_var_name] if isinstance(value, dg.EnvVar) else value
                for name, value in self.bucket.options.items()
            }
            rows = od.scan_history(self.bucket.base_dir, asset=asset, storage_options=options)
        else:
            rows = od.scan_history(str(self.folder), asset=asset)
        found = rows.filter(self.product).sort("valid_from").collect()
        return [float(price) for price in found[self.column]]

    def waiting(self) -> list[str]:
        """The files that wait, without the markers of their readers."""
        if self.bucket:
            names = [name for name in self.bucket.names() if ".waiting/" in name]
        else:
            waiting = self.folder.glob(".*.waiting/**/*")
            names = [str(path) for path in waiting if path.is_file()]
        return [name for name in names if not name.endswith("/reader")]


def of_frames(folder: Path, instance: dg.DagsterInstance) -> Shop:
    frames: list[pl.DataFrame] = []

    @dg.asset
    def frame() -> pl.DataFrame:
        return frames[-1]

    def set_price(price: float, number: int) -> None:
        frames.append(given_frame(day(1) + timedelta(days=number), [product("boot", price)]))

    return Shop(folder, instance, set_price, frame, [od.build_product_history_asset(frame)])


def of_table(folder: Path, instance: dg.DagsterInstance, *, by_key: bool = False) -> Shop:
    tables: list[pl.DataFrame] = []

    @dg.asset
    def articles() -> pl.DataFrame:
        return tables[-1]

    def set_price(price: float, _number: int) -> None:  # its time is when it is stored
        tables.append(pl.DataFrame({"sku": ["4711"], "price": [price]}))

    table = articles.key if by_key else articles
    history = od.build_history_asset(table, key=["sku"], tracked=["price"])
    return Shop(folder, instance, set_price, articles, [history], column="price")


@pytest.fixture(params=KINDS)
def shop(
    request: pytest.FixtureRequest, tmp_path: Path, instance: dg.DagsterInstance
) -> Iterator[Shop]:
    folder = tmp_path / "stored"
    if request.param == "frames":
        yield of_frames(folder, instance)
    elif request.param.startswith("table"):
        yield of_table(folder, instance, by_key=request.param != "table")
    elif request.param == "products":
        with Sandbox(catalogs={"strada": 3}) as sandbox:
            octogen = od.OctogenResource(api_key=sandbox.api_key, base_url=sandbox.base_url)
            products = od.build_products_asset("products", od.ProductSearch(catalogs=["strada"]))
            history = od.build_product_history_asset(products)
            url = "https://www.strada.example/products/dress-1"
            made = Shop(folder, instance, lambda *_: None, products, [history])
            made.resources = {"octogen": octogen}
            made.run(products)
            url = pl.read_parquet(folder / "products.parquet").item(0, "product_url")
            made.set_price = lambda price, _: sandbox.set_price(url, price)
            made.product = pl.col("product_url") == url
            yield made
    else:
        server = BigQueryServer()
        names = ("uuid", "catalog_key", "product_url", "currency")
        server.fields[:] = [
            *({"name": name, "type": "STRING"} for name in names),
            {"name": "current_price", "type": "NUMERIC"},
            {"name": "exported_at", "type": "TIMESTAMP"},
        ]

        def set_price(price: float, number: int) -> None:
            at = datetime(2026, 11, 1 + number, tzinfo=UTC)
            exported = str(int(at.timestamp() * 1e6))
            server.rows = [("u", "acme", "https://a.example/u", "EUR", str(price), exported)]

        snapshots = od.build_linked_snapshot_asset(linked, max_age=None)
        history = od.build_product_history_asset(snapshots)
        with serving(server, tmp_path):
            yield Shop(folder, instance, set_price, snapshots, [history], {**BIGQUERY})


def test_a_history_makes_up_for_each_run_that_was_missed(shop: Shop) -> None:
    for number, price in enumerate(PRICES):
        shop.publish(price, number)
        if number == 0:
            shop.put_in()
    assert len(shop.waiting()) == len(PRICES) - 1
    shop.put_in()
    assert shop.prices() == PRICES
    assert shop.waiting() == []
    shop.publish(PRICES[-1], len(PRICES))  # as before
    shop.put_in()
    shop.put_in()
    assert shop.prices() == PRICES
    assert shop.waiting() == []


@pytest.mark.long
def test_a_history_in_a_bucket_makes_up_for_each_run_that_was_missed(
    shop: Shop, bucket: S3Bucket
) -> None:
    shop.move_to(bucket)
    test_a_history_makes_up_for_each_run_that_was_missed(shop)


def test_histories_of_one_table_take_no_snapshots_of_each_other(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    shop = of_frames(tmp_path, instance)
    within = od.build_product_history_asset(
        shop.asset, name="own", key_prefix=["frame_history", "deep"]
    )
    shop.histories.append(within)
    for number, price in enumerate(PRICES):
        shop.publish(price, number)
        if number in (0, 2):
            shop.put_in(0)
        if number in (0, 3):
            shop.put_in(1)
    for history in (0, 1):
        shop.put_in(history)
        assert shop.prices(history) == PRICES
    assert shop.waiting() == []


def test_snapshots_without_a_history_are_kept_once_and_at_most_31_wait(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    shop = of_frames(tmp_path, instance)
    for number in range(3):
        shop.publish(number + 1.0, number)
    assert [path.name for path in tmp_path.iterdir()] == ["frame.parquet"]
    shop.put_in()
    io_manager = ParquetSnapshotIOManager(base_dir=str(tmp_path))

    def found() -> list[tuple[str, str]]:
        findings = diagnose(io_manager=io_manager).findings
        return [(each.status, each.message) for each in findings if "history" in each.message]

    for number in range(3, 6):
        shop.publish(number + 1.0, number)
    assert found() == []  # a few runs were missed
    for number in range(6, 36):
        shop.publish(number + 1.0, number)
    assert len(shop.waiting()) == 31
    unread = "the history frame_history has not read {} in " + str(tmp_path) + "."
    assert found() == [("warning", unread.format("31 snapshots"))]
    shop.put_in()
    assert shop.prices() == [3.0, *(number + 1.0 for number in range(4, 36))]
    assert (shop.waiting(), found()) == ([], [])

    shop.publish(99.0, 40)
    shop.publish(98.0, 41)
    (tmp_path / "frame_history.parquet").unlink()
    assert found() == [("warning", unread.format("2 snapshots"))]
    shutil.rmtree(tmp_path / ".frame.waiting")
    shop.publish(97.0, 42)
    assert not (tmp_path / ".frame.waiting").exists()


def test_a_bad_snapshot_that_waited_is_named_and_removed(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    shop = of_frames(tmp_path, instance)
    shop.publish(10.0, 0)
    shop.put_in()
    twice = [product("boot", 1.0), product("boot", 2.0)]
    shop.publish(5.0, 1)

    @dg.asset(name="frame")
    def bad() -> pl.DataFrame:
        return given_frame(day(3), twice)

    good, shop.asset = shop.asset, bad
    assert shop.run(bad).success
    shop.asset = good
    shop.publish(7.0, 3)
    result = shop.run(shop.histories[0])
    (event,) = result.asset_materializations_for_node("frame_history")
    assert "2026-11-03 06:00:00 UTC" in str(event.metadata["octogen/left_out"].value)
    assert shop.prices() == [10.0, 5.0, 7.0]
    assert shop.waiting() == []


MOMENTS: dict[str, tuple[str, Any, str]] = {
    "before the replaced snapshot is kept": ("frame", Store, "copy"),
    "before the snapshot is published": ("frame", Store, "publish"),
    "before the snapshot is reported": ("frame", publication, "PublishedSnapshot"),
    "before the present snapshot is opened": ("frame_history", Snapshots, "of_catalog"),
    "before the history is published": ("frame_history", Store, "publish_if"),
    "before the history is reported": ("frame_history", publication, "PublishedSnapshot"),
    "before what waited is removed": ("frame_history", Disk, "delete"),
}


def die_at(folder: str, moment: str) -> None:
    """Run an asset in a process that is killed midway."""
    asset, module, name = MOMENTS[moment]

    def killed(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, name, killed)

    @dg.asset
    def frame() -> pl.DataFrame:
        return given_frame(day(4), [product("boot", 7.0)])

    assets = [frame, od.build_product_history_asset(frame)]
    dg.materialize(assets, selection=[asset], resources=stored(Path(folder)))


@pytest.mark.long
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("is_retried", [True, False])
def test_a_run_that_is_killed_loses_no_snapshot(
    tmp_path: Path, instance: dg.DagsterInstance, moment: str, is_retried: bool
) -> None:
    shop = of_frames(tmp_path, instance)
    for number, price in enumerate(PRICES[:3]):
        shop.publish(price, number)
        if number == 0:
            shop.put_in()
    process = processes.Process(target=die_at, args=(str(tmp_path), moment))
    process.start()
    process.join(PROCESS_SECONDS)
    assert process.exitcode == -signal.SIGKILL
    if MOMENTS[moment][0] == "frame":
        if is_retried:
            shop.publish(PRICES[3], 3)
        is_there = is_retried or moment == "before the snapshot is reported"
    else:
        if is_retried:
            shop.put_in()
        shop.publish(PRICES[3], 3)
        is_there = True
    shop.publish(PRICES[4], 4)
    shop.put_in()
    assert shop.prices() == [price for price in PRICES if is_there or price != PRICES[3]]
    assert shop.waiting() == []
