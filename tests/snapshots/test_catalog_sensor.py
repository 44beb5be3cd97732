from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octogen_dagster.api.connection import Connection
from octogen_dagster.api.index_runs import IndexRun
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots import catalog_sensor as sensors
from octogen_dagster.snapshots.assets import build_products_asset
from octogen_dagster.snapshots.catalog_sensor import (
    CatalogCursor,
    TickInputs,
    build_catalog_sensor,
    plan_tick,
)
from octogen_dagster.snapshots.partitions import catalog_partition_key, catalog_partitions
from octogen_dagster.snapshots.resource import OctogenResource

products = build_products_asset("products", partitions_def=catalog_partitions)
sensor = build_catalog_sensor(products)


class Ticker:
    """Does with a tick's result what the daemon does, but for the runs."""

    def __init__(self, octogen: OctogenResource, instance: dg.DagsterInstance) -> None:
        self.octogen = octogen
        self.instance = instance
        self.cursor: str | None = None
        self.run_keys: list[str] = []

    def tick(self, *, crash_before_the_cursor: bool = False) -> dg.SensorResult | dg.SkipReason:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"octogen": self.octogen}
        )
        result: Any = sensor(context)
        if isinstance(result, dg.SkipReason):
            return result
        for request in result.dynamic_partitions_requests:
            self.instance.add_dynamic_partitions(
                request.partitions_def_name, request.partition_keys
            )
        known = set(self.instance.get_dynamic_partitions("octogen_catalogs"))
        for request in result.run_requests or ():
            assert request.partition_key in known
            if request.run_key not in self.run_keys:
                self.run_keys.append(request.run_key)
        if not crash_before_the_cursor:
            self.cursor = result.cursor
        return result


@pytest.fixture
def ticker(octogen: OctogenResource, instance: dg.DagsterInstance) -> Ticker:
    return Ticker(octogen, instance)


def keys(result: Any) -> list[str]:
    return [request.partition_key for request in result.run_requests or ()]


def test_new_catalogs_become_partitions_and_runs_and_then_rest(ticker: Ticker) -> None:
    first = ticker.tick()
    assert sorted(keys(first)) == ["northpeak", "strada"]
    second = ticker.tick()
    assert keys(second) == []
    assert isinstance(second, dg.SensorResult)
    assert second.skip_reason.skip_message == "None of 2 catalogs was indexed anew."


def test_a_catalog_that_was_indexed_again_is_requested_once_more(
    ticker: Ticker, shops: Sandbox
) -> None:
    ticker.tick()
    shops.touch("strada")
    assert keys(ticker.tick()) == ["strada"]
    assert keys(ticker.tick()) == []
    assert len([key for key in ticker.run_keys if key.startswith("strada@")]) == 2


def test_a_catalog_whose_runs_fail_is_requested_again_with_growing_waits(
    ticker: Ticker, shops: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = START
    monkeypatch.setattr(sensors, "_now", lambda: clock)
    ticker.tick()
    ticker.instance.report_runless_asset_event(
        dg.AssetMaterialization(products.key, partition="northpeak")
    )
    asked: list[tuple[float, str]] = []
    for _ in range(24 * 12):
        clock += timedelta(minutes=5)
        asked += [((clock - START) / timedelta(minutes=1), key) for key in keys(ticker.tick())]
    waits = [10, 20, 40, 80, 160, 320, 360, 360]
    assert asked == [(sum(waits[: n + 1]), "strada") for n in range(len(waits))]
    assert len(ticker.run_keys) == 2 + len(waits)  # Dagster launches a run key once

    ticker.instance.report_runless_asset_event(
        dg.AssetMaterialization(products.key, partition="strada")
    )
    clock += timedelta(days=1)
    assert keys(ticker.tick()) == []
    shops.touch("strada")
    assert keys(ticker.tick()) == ["strada"]


def test_only_what_is_granted_and_over_is_looked_for(
    ticker: Ticker, shops: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = START
    monkeypatch.setattr(sensors, "_now", lambda: clock)
    ticker.tick()
    shops.revoke("strada")
    clock += timedelta(hours=1)
    ticker.tick()
    shops.grant("strada", products=3)
    assert keys(ticker.tick()) == ["strada"]

    asked: list[set[str]] = []

    def materialized(keys: Any) -> dict[str, int]:
        asked.append(set(keys))
        return {}

    catalogs = [index_run(f"shop-{number:04}", 1) for number in range(1_000)]
    unseen = {entry.catalog: sensors.RunAttempt(entry.catalog, 1, 0) for entry in catalogs}
    requested = {entry.catalog: entry.last_indexed_at for entry in catalogs}
    cursor = CatalogCursor(requested, unseen=unseen)
    tick = plan_tick(cursor, catalogs, TickInputs(requested.keys, materialized, set, str, now=1))
    assert len(tick.due) == 50
    assert [len(keys) for keys in asked] == [400, 50]


def test_a_catalog_that_was_indexed_again_is_requested_until_its_run_succeeds(
    ticker: Ticker, shops: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = START
    monkeypatch.setattr(sensors, "_now", lambda: clock)
    ticker.tick()
    for catalog in ("northpeak", "strada"):
        materialized(ticker, catalog)
    clock += timedelta(hours=1)
    assert keys(ticker.tick()) == []
    shops.touch("strada")
    assert keys(ticker.tick()) == ["strada"]
    asked = []
    for _ in range(6):
        clock += timedelta(minutes=5)
        asked.append(keys(ticker.tick()))
    assert asked == [[], ["strada"], [], [], [], ["strada"]]
    materialized(ticker, "strada")
    clock += timedelta(days=1)
    assert keys(ticker.tick()) == []


def test_a_cursor_that_was_reset_reads_nothing_again(
    ticker: Ticker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = START
    monkeypatch.setattr(sensors, "_now", lambda: clock)
    ticker.tick()
    for catalog in ("northpeak", "strada"):
        materialized(ticker, catalog)
    ticker.cursor = None
    for _ in range(5):
        ticker.tick()
        clock += timedelta(hours=1)
    assert len(ticker.run_keys) == 2


def materialized(ticker: Ticker, partition: str) -> None:
    ticker.instance.report_runless_asset_event(
        dg.AssetMaterialization(products.key, partition=partition)
    )


def test_a_clock_that_jumped_and_went_back_delays_no_request(
    ticker: Ticker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = START + timedelta(days=3650)
    monkeypatch.setattr(sensors, "_now", lambda: clock)
    ticker.tick()
    clock = START
    assert sorted(keys(ticker.tick())) == ["northpeak", "strada"]
    assert keys(ticker.tick()) == []


def test_a_catalog_whose_run_is_not_finished_is_not_requested_again(
    ticker: Ticker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = START
    monkeypatch.setattr(sensors, "_now", lambda: clock)
    ticker.tick()
    defs = dg.Definitions(assets=[products], resources={"octogen": ticker.octogen})
    job = defs.resolve_implicit_global_asset_job_def()
    ticker.instance.create_run_for_job(
        job,
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/sensor_name": sensor.name, "dagster/partition": "strada"},
    )
    clock += timedelta(hours=1)
    assert keys(ticker.tick()) == ["northpeak"]


def test_awkward_catalog_keys_are_partitions_too(ticker: Ticker, shops: Sandbox) -> None:
    shops.grant("../x, y", products=3)
    assert catalog_partition_key("../x, y") in keys(ticker.tick())


def test_a_catalog_that_is_gone_is_reported_once_and_seen_again_when_it_returns(
    ticker: Ticker, shops: Sandbox
) -> None:
    ticker.tick()
    shops.revoke("strada")
    result = ticker.tick()
    assert isinstance(result, dg.SensorResult)
    (event,) = result.asset_events
    assert (event.asset_key, event.partition) == (products.key, "strada")
    again = ticker.tick()
    assert isinstance(again, dg.SensorResult)
    assert again.asset_events == []
    assert "strada" in ticker.instance.get_dynamic_partitions("octogen_catalogs")

    shops.grant("strada", products=3)
    shops.touch("strada")
    assert keys(ticker.tick()) == ["strada"]


def test_a_failed_listing_skips_with_the_reason_and_the_next_tick_catches_up(
    ticker: Ticker, shops: Sandbox
) -> None:
    shops.inject(Fault("status", 401, times=1, path="/catalogs"))
    skipped = ticker.tick()
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message
    assert skipped.skip_message.startswith("The catalogs could not be listed, the next tick")
    assert len(keys(ticker.tick())) == 2


def test_without_a_key_the_tick_says_what_to_do(shops: Sandbox, instance: Any) -> None:
    skipped = Ticker(OctogenResource(base_url=shops.base_url), instance).tick()
    assert isinstance(skipped, dg.SkipReason)
    assert "set OCTO_API_KEY" in (skipped.skip_message or "")


@pytest.mark.parametrize("cursor", ["not json", '{"version": 99, "requested": {}}', "[]"])
def test_a_cursor_that_cannot_be_read_starts_over_and_doubles_nothing(
    ticker: Ticker, cursor: str
) -> None:
    ticker.tick()
    ticker.cursor = cursor
    ticker.tick()
    assert len(ticker.run_keys) == 2
    assert keys(ticker.tick()) == []


def test_a_crash_before_the_cursor_is_stored_loses_and_doubles_nothing(ticker: Ticker) -> None:
    ticker.tick(crash_before_the_cursor=True)
    ticker.tick()
    assert len(ticker.run_keys) == 2


def test_the_asset_must_have_dynamic_partitions() -> None:
    with pytest.raises(ValueError, match="Asset 'plain' must have a DynamicPartitionsDefinition"):
        build_catalog_sensor(build_products_asset("plain"))


START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def world(known: set[str], now: int = 0) -> TickInputs:
    return TickInputs(known.copy, lambda _: {}, set, str, now)


def index_run(key: str, day: int) -> IndexRun:
    return IndexRun(key, START + timedelta(days=day) if day else None)


def test_ten_thousand_catalogs_are_requested_fifty_a_tick_each_once() -> None:
    catalogs = [index_run(f"shop-{number}", 1) for number in range(10_000)]
    cursor, known, requested = CatalogCursor({}), set[str](), list[str]()
    for _ in range(200):
        tick = plan_tick(cursor, catalogs, world(known))
        assert len(tick.due) == 50
        assert len(tick.new) <= 1_000
        known |= set(tick.new)
        requested += [key for key, _ in tick.due]
        cursor, _ = CatalogCursor.load(tick.cursor.dump())
    assert len(set(requested)) == len(requested) == 10_000
    assert plan_tick(cursor, catalogs, world(known)).due == []


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3), max_size=8), max_size=12
    )
)
def test_every_move_is_requested_once_and_nothing_else(history: list[dict[str, int]]) -> None:
    cursor, known = CatalogCursor({}), set[str]()
    last: dict[str, int] = {}
    for granted in history:
        tick = plan_tick(
            cursor, [index_run(key, day) for key, day in granted.items()], world(known)
        )
        moved = {key for key, day in granted.items() if last.get(key) != day}
        assert {key for key, _ in tick.due} == moved
        known |= set(tick.new)
        last |= granted
        cursor, unreadable = CatalogCursor.load(tick.cursor.dump())
        assert not unreadable


def test_a_catalog_that_changes_all_the_time_starves_no_other() -> None:
    busy = [f"busy-{number:03}" for number in range(60)]
    cursor, known = CatalogCursor({}), set[str]()
    seen: set[str] = set()
    for day in range(1, 5):
        catalogs = [index_run(key, day) for key in busy] + [index_run("quiet", 1)]
        tick = plan_tick(cursor, catalogs, world(known))
        known |= set(tick.new)
        seen |= {key for key, _ in tick.due}
        cursor = tick.cursor
    assert seen == {*busy, "quiet"}


def test_partitions_are_looked_up_only_when_a_snapshot_is_due() -> None:
    def unasked() -> set[str]:
        raise AssertionError("nothing is due")

    catalogs = [index_run("quiet", 1), index_run("never", 0)]
    cursor = plan_tick(CatalogCursor({}), catalogs, world(set())).cursor
    assert (
        plan_tick(
            cursor, catalogs, TickInputs(unasked, lambda _: unasked(), unasked, str, now=0)
        ).due
        == []
    )


def test_the_newest_of_those_never_requested_come_first() -> None:
    catalogs = [index_run(f"shop-{day:03}", day) for day in range(1, 100)]
    tick = plan_tick(CatalogCursor({}), catalogs, world(set()))
    assert [key for key, _ in tick.due] == [f"shop-{day:03}" for day in range(99, 49, -1)]


def test_what_was_indexed_at_an_earlier_time_again_gets_new_run_keys() -> None:
    cursor, run_keys = CatalogCursor({}), []
    for day in (1, 2, 1, 2, 0, 2):
        tick = plan_tick(cursor, [index_run("shop", day)], world({"shop"}))
        run_keys += [run_key for _, run_key in tick.due]
        cursor = tick.cursor
    assert len(set(run_keys)) == len(run_keys) == 6


def test_many_that_vanish_at_once_are_reported_a_hundred_a_tick_each_once() -> None:
    catalogs = [index_run(f"shop-{number}", 1) for number in range(250)]
    cursor, known = CatalogCursor({}), {entry.catalog for entry in catalogs}
    for _ in range(5):
        cursor = plan_tick(cursor, catalogs, world(known)).cursor
    reported: list[str] = []
    for expected in (100, 100, 50, 0):
        tick = plan_tick(cursor, [], world(known))
        assert len(tick.gone) == expected
        reported += tick.gone
        cursor = tick.cursor
    assert len(set(reported)) == 250


def test_a_catalog_that_cannot_be_a_partition_is_left_out_and_the_others_are_not(
    ticker: Ticker, shops: Sandbox, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    odd = [IndexRun(" ", None), IndexRun("x" * 300, None), index_run("northpeak", 1)]
    monkeypatch.setattr(sensors, "_list_catalogs", lambda _: odd)
    assert keys(ticker.tick()) == ["northpeak"]
    said = capfd.readouterr().err
    assert "Catalog ' ' is left out. A catalog key must not be empty." in said
    assert "cannot name a file: the name must have 1 to 200 characters, and has 300" in said


@pytest.mark.parametrize("again", [False, True])
def test_a_catalog_that_vanishes_again_is_reported_again(
    ticker: Ticker, shops: Sandbox, again: bool
) -> None:
    ticker.tick()
    for _ in range(1 + again):
        shops.revoke("strada")
        result: Any = ticker.tick()
        assert [event.partition for event in result.asset_events] == ["strada"]
        shops.grant("strada", products=3)
        ticker.tick()


def test_what_the_next_ticks_do_and_a_lost_cursor_are_said(
    ticker: Ticker, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    catalogs = [index_run(f"shop-{number:02}", 1) for number in range(60)]
    monkeypatch.setattr(sensors, "_list_catalogs", lambda _: catalogs)
    ticker.cursor = "of another version"
    assert len(keys(ticker.tick())) == 50
    said = capfd.readouterr().err
    assert "The cursor is of another version or damaged: every catalog is looked at anew." in said
    assert "10 more snapshots are due; the next ticks request them." in said


def test_the_listing_has_half_of_a_ticks_time(
    ticker: Ticker, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines = []

    def call(connection: Any, _work: Any) -> list[IndexRun]:
        deadlines.append(connection.retry.deadline)
        return []

    monkeypatch.setattr(Connection, "call", call)
    ticker.tick()
    ticker.octogen = OctogenResource(api_key=ticker.octogen.api_key, deadline=5)
    ticker.tick()
    assert deadlines == [sensors.LISTING_TIMEOUT, 5]
