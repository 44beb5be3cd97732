"""The history of products in Dagster: every snapshot is in it, whatever happened to the runs."""

from __future__ import annotations

import math
import os
import re
import resource
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import octogen_dagster as od
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.history.files import forget_snapshot
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.schemas import HISTORY_SCHEMA
from octogen_dagster.snapshots.partitions import catalog_partition_key
from octogen_dagster.storage.store import Store
from tests.forked import processes
from tests.histories import ASSET as OF_GIVEN
from tests.histories import day, make_history, product, without_brands
from tests.limits import limited
from tests.promises.history.history_runs import (
    ASSET,
    MOMENTS,
    Pipeline,
    put_in_and_die,
)
from tests.results import cells, metadata, octogen_at

PROCESS_SECONDS = 120.0
CHANGING = ["valid_to", "is_current"]
"""What a later snapshot changes in the rows of an earlier one."""


@pytest.fixture
def shops() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"northpeak": 230, "strada": 120}) as running:
        yield running


@pytest.fixture
def pipeline(tmp_path: Path, octogen: od.OctogenResource, instance: dg.DagsterInstance) -> Pipeline:
    return Pipeline(tmp_path, octogen, instance)


@pytest.mark.slow
def test_as_of_the_time_of_each_snapshot_the_history_is_that_snapshot(
    pipeline: Pipeline, shops: Sandbox
) -> None:
    for _ in range(4):
        pipeline.store()
        pipeline.put_in()
        shops.next_day()
    pipeline.check()
    first, *_, last = pipeline.snapshots
    assert pipeline.scan(first - timedelta(microseconds=1)).is_empty()
    assert_frame_equal(pipeline.scan(last), pipeline.scan().filter("is_current"))
    history = pipeline.scan()
    assert history.schema == HISTORY_SCHEMA
    assert history.filter("is_current")["valid_to"].null_count() == len(pipeline.snapshots[last])


@pytest.mark.slow
def test_the_metadata_has_the_numbers_of_the_last_snapshot_and_zeros_too(
    pipeline: Pipeline, shops: Sandbox
) -> None:
    pipeline.store()
    first = pipeline.put_in()
    names = ("changed", "appeared", "disappeared", "reappeared", "current_products", "snapshots")

    def numbers(shown: dict[str, Any]) -> tuple[int, ...]:
        return tuple(shown[f"octogen/{name}"] for name in names)

    assert numbers(first) == (0, 120, 0, 0, 120, 1)
    assert "octogen/largest_price_drops" not in first
    columns = ("product_url", "current_price", "currency")
    priced = pipeline.scan().filter(pl.col("current_price") > 20, pl.col("currency").is_not_null())
    url, price, currency = priced.select(columns).row(0)
    shops.set_price(url, 10.0)
    pipeline.store()
    second = pipeline.put_in()
    assert numbers(second) == (1, 0, 0, 0, 120, 2)
    drops = second["octogen/largest_price_drops"]
    assert f"{price:,.2f} → 10.00 {currency}" in drops
    assert url in drops
    prices = pipeline.scan().filter(is_current=True, currency=currency)["current_price"]
    assert second[f"octogen/median_price_{currency.lower()}"] == pytest.approx(prices.quantile(0.5))
    for products in (119, 120):
        shops.grant("strada", products=products)
        pipeline.store()
        last = pipeline.put_in()
    assert numbers(last) == (0, 0, 0, 1, 120, 4)
    pipeline.check()


@pytest.mark.slow
def test_the_line_of_a_history_is_of_its_snapshots_and_not_of_its_runs(
    pipeline: Pipeline, shops: Sandbox
) -> None:
    pipeline.store()
    pipeline.put_in()
    shops.grant("strada", products=60)
    pipeline.store()
    for _ in range(2):
        shown = pipeline.put_in()
    assert shown["octogen/summary"].startswith("**60 products** in 2 snapshots")
    header, of_products, of_prices = cells(shown["octogen/trend"])
    assert header == ["2 snapshots", "first", "", "last"]
    assert of_products == ["products", "120", "\u2588\u2581", "60"]
    name, first, _, last = of_prices
    prices = pl.col("current_price").filter(currency=name.removeprefix("median "))
    medians = [each.select(prices.median()).item() for each in pipeline.snapshots.values()]
    assert [float(first), float(last)] == pytest.approx(medians, abs=0.5)


@pytest.mark.long
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_repeats(pipeline: Pipeline, shops: Sandbox, moment: str) -> None:
    first = pipeline.store()
    pipeline.put_in()
    before = pipeline.scan()
    shops.next_day()
    pipeline.store()
    process = processes.Process(target=put_in_and_die, args=(str(pipeline.folder), moment))
    process.start()
    process.join(PROCESS_SECONDS)
    assert process.exitcode == -signal.SIGKILL
    is_published = pipeline.scan().height > before.height
    assert is_published == (moment in ("the file is published", "the run reports it"))
    assert_frame_equal(pipeline.scan(first).drop(CHANGING), before.drop(CHANGING))
    again = pipeline.put_in()
    pipeline.check()
    assert again["octogen/snapshots"] == 2
    assert again["octogen/changed"] > 0


def test_of_a_search_with_filters_a_product_that_is_gone_no_longer_matches(
    tmp_path: Path, octogen: od.OctogenResource, instance: dg.DagsterInstance, shops: Sandbox
) -> None:
    search = od.ProductSearch(catalogs=["strada"], price_max=200)
    pipeline = Pipeline(tmp_path, octogen, instance, search=search)
    (description,) = pipeline.history.descriptions_by_key.values()
    assert "filters" in description
    first = pipeline.store()
    pipeline.put_in()
    for url in pipeline.snapshots[first]["product_url"]:
        shops.set_price(url, 500.0)
    pipeline.store()
    assert pipeline.put_in()["octogen/disappeared"] == len(pipeline.snapshots[first])
    assert pipeline.scan().filter("is_current").is_empty()


@pytest.mark.slow
def test_a_forgotten_snapshot_might_never_have_been_and_does_not_come_back(
    pipeline: Pipeline, shops: Sandbox
) -> None:
    pipeline.store()
    pipeline.put_in()
    expected = pipeline.scan()
    url = expected.filter(pl.col("current_price") > 0).item(0, "product_url")
    shops.set_price(url, 1_000_000.0)
    bad = pipeline.store()
    assert pipeline.put_in()["octogen/changed"] == 1
    for _ in range(2):
        forget_snapshot(str(pipeline.folder), bad, asset=ASSET)
        assert_frame_equal(pipeline.scan(), expected)
    pipeline.put_in()
    assert_frame_equal(pipeline.scan(), expected)
    del pipeline.snapshots[bad]
    shops.next_day()
    pipeline.store()
    assert pipeline.put_in()["octogen/snapshots"] == 2
    pipeline.check()


def test_a_time_without_a_snapshot_cannot_be_forgotten(pipeline: Pipeline) -> None:
    at = pipeline.store()
    pipeline.put_in()
    unknown = at - timedelta(seconds=1)
    with pytest.raises(OctogenSnapshotError) as caught:
        forget_snapshot(str(pipeline.folder), unknown, asset=ASSET)
    for named in (ASSET, unknown.isoformat(), at.isoformat()):
        assert named in str(caught.value)


@pytest.mark.slow
def test_the_histories_of_catalogs_are_read_together_or_some_of_them(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    sizes = {"strada": 12, "a.b/c": 5, "northpeak": 23}
    keys = [catalog_partition_key(catalog) for catalog in sizes]
    instance.add_dynamic_partitions("octogen_catalogs", keys)
    with Sandbox(catalogs=sizes) as sandbox:
        octogen = octogen_at(sandbox, catalog_source=od.ShopCatalogs(hosts=sandbox.hosts))
        pipeline = Pipeline(
            tmp_path, octogen, instance, search=None, partitions_def=od.catalog_partitions
        )
        for key in keys:
            pipeline.store(key)
            pipeline.put_in(key)
    for catalogs in (None, ["strada"], ["a.b/c"]):
        frame = od.scan_history(str(tmp_path), asset=ASSET, catalogs=catalogs).collect()
        found = dict(frame["catalog_key"].value_counts().rows())
        assert found == {key: sizes[key] for key in catalogs or sizes}


def test_a_history_that_is_not_there_is_an_error(pipeline: Pipeline) -> None:
    with pytest.raises(OctogenSnapshotError) as caught:
        pipeline.scan()
    for named in (f"history {ASSET}", str(pipeline.folder / ASSET), "Materialize it"):
        assert named in str(caught.value)


def test_a_damaged_history_is_not_replaced_by_one_without_the_past(pipeline: Pipeline) -> None:
    pipeline.store()
    pipeline.put_in()
    file = pipeline.folder / f"{ASSET}.parquet"
    file.write_bytes(b"PAR1 and no more")
    with pytest.raises(dg.Failure, match=r"Restore the file from a backup\. .* move the file"):
        pipeline.put_in()
    assert file.read_bytes() == b"PAR1 and no more"


@pytest.mark.long
@pytest.mark.parametrize("by_catalog", [False, True])
def test_a_history_reads_the_days_that_it_has_not_seen(
    tmp_path: Path,
    octogen: od.OctogenResource,
    instance: dg.DagsterInstance,
    shops: Sandbox,
    by_catalog: bool,
) -> None:
    """Of a day that was read again, both snapshots are in it."""
    now = datetime.now(UTC)
    days = [f"{now - timedelta(days=ago):%Y-%m-%d}" for ago in range(4)]
    instance.add_dynamic_partitions("octogen_catalogs", ["strada"])
    pipeline = Pipeline(
        tmp_path,
        octogen,
        instance,
        search=od.ProductSearch() if by_catalog else od.ProductSearch(catalogs=["strada"]),
        partitions_def=od.catalog_days(days[-1]) if by_catalog else od.snapshot_days(days[-1]),
    )
    assert pipeline.history.partitions_def == (od.catalog_partitions if by_catalog else None)
    key = "strada" if by_catalog else None
    folder = tmp_path / "products" / ("strada" if by_catalog else "")

    def read_a_day(moved_to: str) -> None:
        pipeline.store(f"strada|{days[0]}" if by_catalog else days[0])
        (folder / f"{days[0]}.parquet").rename(folder / f"{moved_to}.parquet")
        shops.next_day()

    read_a_day(days[1])
    read_a_day(days[3])  # the day between them is delivered late
    assert pipeline.put_in(key)["octogen/snapshots"] == 2
    read_a_day(days[1])
    read_a_day(days[2])
    shown = pipeline.put_in(key)
    assert shown["octogen/snapshots"] == 4
    pipeline.check()
    assert pipeline.put_in(key)["octogen/snapshots"] == 4


def test_another_file_at_the_place_of_a_history_is_left_as_it_is(pipeline: Pipeline) -> None:
    pipeline.store()
    file = pipeline.folder / f"{ASSET}.parquet"
    pl.DataFrame({"not": ["a history"]}).write_parquet(file)
    content = file.read_bytes()
    with pytest.raises(OctogenSnapshotError, match="not a history, move it to another folder"):
        pipeline.put_in()
    assert file.read_bytes() == content


@pytest.mark.parametrize("by_catalog", [False, True])
def test_a_history_of_days_follows_them_although_some_were_never_read(
    tmp_path: Path, octogen: od.OctogenResource, instance: dg.DagsterInstance, by_catalog: bool
) -> None:
    now = datetime.now(UTC)
    today, first = (f"{now - timedelta(days=ago):%Y-%m-%d}" for ago in (0, 3))
    instance.add_dynamic_partitions("octogen_catalogs", ["strada"])
    pipeline = Pipeline(
        tmp_path,
        octogen,
        instance,
        search=od.ProductSearch() if by_catalog else od.ProductSearch(catalogs=["strada"]),
        partitions_def=od.catalog_days(first) if by_catalog else od.snapshot_days(first),
    )
    eager = dg.AutomationCondition.eager()
    history = od.build_product_history_asset(pipeline.products, automation_condition=eager)
    defs = dg.Definitions(assets=[pipeline.products, history], resources=pipeline.resources)
    before = dg.evaluate_automation_conditions(defs, instance)
    assert before.total_requested == 0
    pipeline.store(f"strada|{today}" if by_catalog else today)
    after = dg.evaluate_automation_conditions(defs, instance, cursor=before.cursor)
    key = "strada" if by_catalog else None
    assert after.get_requested_partitions(history.key) == {key}


@pytest.mark.slow
def test_rows_are_of_the_time_at_which_they_were_read_although_others_are_published_meanwhile(
    pipeline: Pipeline, shops: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.store()
    pipeline.put_in()
    shops.next_day()
    pipeline.store()
    scan = Store.scan
    is_published: list[str] = []

    def publish_after(store: Store, key: str, **how: Any) -> pl.LazyFrame:
        frame = scan(store, key, **how)
        if key == "products.parquet" and not is_published:
            is_published.append(key)
            shops.next_day()
            pipeline.store()
        return frame

    monkeypatch.setattr(Store, "scan", publish_after)
    pipeline.put_in()
    assert is_published
    pipeline.put_in()
    assert pipeline.put_in()["octogen/snapshots"] == 3
    pipeline.check()


def test_times_of_named_zones_are_understood(pipeline: Pipeline) -> None:
    at = pipeline.store()
    pipeline.put_in()
    in_tokyo = at.astimezone(ZoneInfo("Asia/Tokyo"))
    assert pipeline.scan(in_tokyo).height == 120
    forget_snapshot(str(pipeline.folder), in_tokyo, asset=ASSET)
    assert pipeline.scan().is_empty()


@pytest.mark.long
def test_a_history_of_more_days_than_files_may_be_open_begins(
    tmp_path: Path, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = pipeline.store()
    days = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-06-01")

    @dg.asset(partitions_def=days)
    def daily() -> pl.DataFrame:
        raise NotImplementedError

    (tmp_path / "daily").mkdir()
    for number, key in enumerate(days.get_partition_keys()):
        row = pipeline.snapshots[at].head(1)
        row = row.with_columns(pl.lit(at + timedelta(days=number)).alias("fetched_at"))
        row.write_parquet(tmp_path / "daily" / f"{key}.parquet")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    history = od.build_product_history_asset(daily)
    with limited(resource.RLIMIT_NOFILE, len(os.listdir("/proc/self/fd")) + 100):
        result = pipeline.run([daily, history], selection=[history])
    (event,) = result.asset_materializations_for_node("daily_history")
    assert event.metadata["octogen/snapshots"].value == 151
    assert not list(temporary.iterdir())


def own_asset(pipeline: Pipeline, *frames: pl.DataFrame) -> dict[str, Any]:
    """The metadata of the history of an asset of one's own, after its last snapshot."""
    given = iter(frames)

    @dg.asset
    def own() -> pl.DataFrame:
        return next(given)

    history = od.build_product_history_asset(own)
    for _ in frames:
        result = pipeline.run([own, history])
    return metadata(result, "own_history")


@pytest.mark.slow
def test_rows_of_other_types_without_loss_are_those_of_the_schema(pipeline: Pipeline) -> None:
    at = pipeline.store()
    rows = pipeline.snapshots[at].head(3).with_columns(current_price=pl.lit(0.5))
    in_berlin = pl.col("fetched_at").dt.convert_time_zone("Europe/Berlin")
    naive = pl.col("fetched_at").dt.replace_time_zone(None).cast(pl.Datetime("ms"))
    own_asset(
        pipeline,
        rows.cast({"current_price": pl.Float32}).with_columns(in_berlin),
        rows.cast({"current_price": pl.Decimal(9, 2)}).with_columns(naive + timedelta(days=1)),
    )
    history = od.scan_history(str(pipeline.folder), asset="own_history").collect()
    assert history.schema == HISTORY_SCHEMA
    assert history["current_price"].to_list() == [0.5] * 3
    assert history["valid_from"].unique().to_list() == [rows["fetched_at"].max()]


@pytest.mark.slow
def test_a_history_does_not_begin_with_rows_that_cannot_be_in_it(pipeline: Pipeline) -> None:
    rows = pipeline.snapshots[pipeline.store()].head(3)
    no_time = pl.lit(None).cast(pl.Datetime("us", "UTC"))
    for column, says in (
        (pl.lit("cheap").alias("current_price"), "column current_price has the type String"),
        (pl.lit(None, pl.String).alias("uuid"), "product whose uuid is null"),
        (pl.col("uuid").first(), "has duplicate products"),
        (no_time.alias("fetched_at"), "null in all 3 rows"),
    ):
        with pytest.raises(dg.Failure, match=says):
            own_asset(pipeline, rows.with_columns(column))
    with pytest.raises(dg.Failure, match="no column title"):
        own_asset(pipeline, rows.drop("title"))


@pytest.mark.slow
def test_odd_prices_and_currencies_are_not_plotted(pipeline: Pipeline) -> None:
    rows = pipeline.snapshots[pipeline.store()].head(8)
    currencies = pl.Series("currency", ["EUR", "EUR", "e u<b>", "", None, "USD", "EUR", "GBP"])
    prices = pl.Series("current_price", [2, math.nan, 3, 4, 5, math.inf, 9, 0], pl.Float64)
    in_small = currencies.replace("EUR", "eur")
    cheaper = rows.with_columns(in_small, (prices - 0.1 - 0.2) * pl.Series([1] * 6 + [0, 0]))
    later = (pl.col("fetched_at") + timedelta(days=1)).alias("fetched_at")
    shown = own_asset(pipeline, rows.with_columns(currencies, prices), cheaper.with_columns(later))
    medians = {name: value for name, value in shown.items() if "median_price" in name}
    assert medians == {"octogen/median_price_no_currency": 4.7}, "as many as in EUR"
    assert shown["octogen/metrics"]["median_price_eur"] == 1.7
    drops = shown["octogen/largest_price_drops"]
    assert ("2.00 → 1.70 eur" in drops, "9.00" in drops) == (True, False), drops
    assert {"product", "price", "from"} <= {
        name.strip() for name in shown["octogen/preview"].splitlines()[0].split("|")
    }


def test_zeros_are_shown_of_a_history_without_a_snapshot(pipeline: Pipeline) -> None:
    at = pipeline.store()
    pipeline.put_in()
    forget_snapshot(str(pipeline.folder), at, asset=ASSET)
    shown = pipeline.put_in()
    assert (shown["octogen/snapshots"], shown["octogen/changed"]) == (0, 0)


def test_a_file_that_is_no_history_or_there_twice_is_an_error(pipeline: Pipeline) -> None:
    at, base = pipeline.store(), str(pipeline.folder)
    pipeline.put_in()
    for use in (
        lambda: od.scan_history(base, asset="products"),
        lambda: forget_snapshot(base, at, asset="products"),
    ):
        with pytest.raises(OctogenSnapshotError, match="The asset products is not a history"):
            use()
    file = pipeline.folder / f"{ASSET}.parquet"
    (pipeline.folder / ASSET).mkdir()
    shutil.copy(file, pipeline.folder / ASSET / "strada.parquet")
    found = rf"one file, {re.escape(str(file))}, .* {re.escape(str(pipeline.folder / ASSET))}\b"
    with pytest.raises(OctogenSnapshotError, match=found):
        pipeline.scan()


def test_the_catalogs_of_a_history_in_one_file_are_known_in_any_case(pipeline: Pipeline) -> None:
    pipeline.store()
    pipeline.put_in()

    def height(catalogs: Any) -> int:
        found = od.scan_history(str(pipeline.folder), asset=ASSET, catalogs=catalogs)
        return found.collect().height

    assert height(["strada"]) == height(["Strada"]) == 120
    with pytest.raises(
        OctogenSnapshotError, match=r"no catalog 'nope'\. The history contains 1 catalog: strada\."
    ):
        height(["nope"])
    with pytest.raises(TypeError, match=r"\['strada'\]"):
        height("strada")


@pytest.mark.long
def test_a_history_of_hundreds_of_shops_does_not_grow_by_their_names_each_day(
    pipeline: Pipeline,
) -> None:
    product = pipeline.snapshots[pipeline.store()].head(1)
    names = [f"shop-{number}.example" for number in range(400)]

    def of_day(number: int, shops: list[str]) -> pl.DataFrame:
        return product.join(pl.DataFrame({"catalog_key": shops}), how="cross", suffix="_").select(
            pl.col("catalog_key_").alias("catalog_key"),
            pl.exclude("catalog_key", "catalog_key_", "fetched_at"),
            pl.col("fetched_at") + timedelta(days=number),
        )

    def size(days: int) -> int:
        own_asset(pipeline, *(of_day(number, names) for number in range(days)))
        file = pipeline.folder / "own_history.parquet"
        metadata = pl.read_parquet_metadata(file)
        file.unlink()
        return sum(map(len, metadata.values()))

    assert size(11) - size(1) < 10 * 200
    # What each of them covered is known all the same: a shop without products was withdrawn.
    own_asset(pipeline, *(of_day(number, names[: 400 - number % 2]) for number in range(3)))
    history = od.scan_history(str(pipeline.folder), asset="own_history")
    assert history.select("is_current", "valid_to").unique().collect().rows() == [(True, None)]


@pytest.mark.slow
def test_the_files_of_many_catalogs_are_read_within_the_limit_of_a_shell_on_macos(
    tmp_path: Path, pipeline: Pipeline
) -> None:
    rows = pipeline.snapshots[pipeline.store()].head(1)
    own_asset(pipeline, rows)
    file = tmp_path / "own_history.parquet"
    names = [f"shop-{number}" for number in range(250)]
    for folder in ("products_of_shops", "own_history"):
        (tmp_path / folder).mkdir()
        for name in names:
            shutil.copy(file, tmp_path / folder / f"{name}.parquet")
    file.unlink()

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(names))
    def products_of_shops() -> None: ...

    @dg.asset
    def together(products_of_shops: pl.LazyFrame) -> pl.DataFrame:
        return products_of_shops.collect()

    with limited(resource.RLIMIT_NOFILE, 256):
        assert od.scan_history(str(tmp_path), asset="own_history").collect().height == 250
        result = pipeline.run([products_of_shops, together], selection=[together])
    assert result.output_for_node("together").height == 250


@pytest.mark.long
def test_the_history_of_many_catalogs_that_is_held_over_an_update_says_so(tmp_path: Path) -> None:
    make_history(tmp_path, {day(1): [product("boot", 100.0)], day(2): [product("boot", 90.0)]})
    asset = "octogen_products_history"
    folder = tmp_path / asset
    for number in range(101):
        shutil.copy(folder / "acme.parquet", folder / f"shop-{number}.parquet")
    history = od.scan_history(str(tmp_path), asset=asset)
    now = history.filter("is_current")
    assert now.collect()["current_price"].unique().to_list() == [90.0]
    forget_snapshot(str(tmp_path), day(2), asset=asset)
    for frame in (history, now):
        with pytest.raises(OctogenSnapshotError, match="was replaced while it was being read"):
            frame.collect()


def test_history_that_was_stored_without_brands_goes_on(tmp_path: Path) -> None:
    seen = {"brand": {"name": "Acme"}, "category_path": ["Shoes", "Boots"]}
    boots, scarf = product("boots", 100.0, **seen), product("scarf", 20.0, **seen)
    make_history(tmp_path, {day(1): [boots, scarf], day(2): [boots]})
    make_history(tmp_path, {day(1): [product("hat", 9.0, **seen)]}, "zen")
    without_brands(tmp_path)
    forget_snapshot(str(tmp_path), day(2), asset=OF_GIVEN)
    make_history(tmp_path, {day(3): [boots]})
    found = od.scan_history(str(tmp_path), asset=OF_GIVEN).collect().sort("uuid")
    assert found.select("uuid", "valid_to", "brand_name", "category").rows() == [
        ("boots", None, "Acme", "Shoes \u203a Boots"),
        ("hat", None, None, None),
        ("scarf", day(3), None, None),
    ]
