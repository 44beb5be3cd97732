"""The catalog sensor, tick by tick, with the daemon's part played in between."""

import asyncio
import itertools
import threading
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

import dagster as dg
import httpx
import pytest

from octogen_dagster.api.catalog_sources import CatalogSource, GrantedCatalogs, ShopCatalogs
from octogen_dagster.api.catalog_states import CatalogList
from octogen_dagster.api.client import OctogenClient
from octogen_dagster.errors import (
    OctogenAuthenticationError,
    OctogenError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
    OctogenNotFoundError,
    OctogenRateLimitError,
    OctogenServerError,
)
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots import catalog_sensor
from octogen_dagster.snapshots.assets import build_products_asset
from octogen_dagster.snapshots.catalog_sensor import (
    LISTING_TIMEOUT,
    CatalogSensor,
    build_catalog_sensor,
)
from octogen_dagster.snapshots.partitions import catalog_partition_key, catalog_partitions
from octogen_dagster.snapshots.resource import OctogenResource
from tests.api.servers import RawServer, dripping

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
products = build_products_asset("products", partitions_def=catalog_partitions)


class Ticker:
    """Handles the result of a tick as the daemon does, except that it launches no runs.

    Attributes:
        now: The time of the next tick.
    """

    def __init__(self, octogen: OctogenResource, instance: dg.DagsterInstance) -> None:
        self.octogen = octogen
        self.instance = instance
        self.now = START
        self.sensor = CatalogSensor(products, clock=lambda: self.now).definition()
        self.cursor: str | None = None
        self.run_keys: list[str] = []

    def evaluate(self) -> dg.SensorResult | dg.SkipReason:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"octogen": self.octogen}
        )
        result = self.sensor(context)
        assert isinstance(result, (dg.SensorResult, dg.SkipReason))
        if isinstance(result, dg.SkipReason):
            self.cursor = context.cursor
        return result

    def tick(self, *, crash_before_the_cursor: bool = False) -> dg.SensorResult:
        """A tick that lists the catalogs."""
        result = self.evaluate()
        assert isinstance(result, dg.SensorResult)
        for request in result.dynamic_partitions_requests or ():
            assert isinstance(request, dg.AddDynamicPartitionsRequest)
            self.instance.add_dynamic_partitions(
                request.partitions_def_name, request.partition_keys
            )
        known = set(self.instance.get_dynamic_partitions("octogen_catalogs"))
        for run in result.run_requests or ():
            assert run.partition_key in known
            assert run.run_key
            if run.run_key not in self.run_keys:
                self.run_keys.append(run.run_key)
        if not crash_before_the_cursor:
            self.cursor = result.cursor
        return result

    def requested(self, **later: float) -> list[str | None]:
        """The partitions that a tick requests.

        Args:
            later: How much later than the last tick, as arguments of `timedelta`.
        """
        self.now += timedelta(**later)
        return [run.partition_key for run in self.tick().run_requests or ()]

    def materialize(self, *partitions: str) -> None:
        for partition in partitions:
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(products.key, partition=partition)
            )


@pytest.fixture
def ticker(octogen: OctogenResource, instance: dg.DagsterInstance) -> Ticker:
    return Ticker(octogen, instance)


def gone(result: dg.SensorResult) -> list[str | None]:
    return [event.partition for event in result.asset_events]


def test_new_catalogs_become_partitions_and_runs_and_then_rest(ticker: Ticker) -> None:
    assert ticker.requested() == ["northpeak", "strada"]
    second = ticker.tick()
    assert second.run_requests == []
    assert second.skip_reason == dg.SkipReason("None of 2 catalogs was indexed anew.")


def test_a_catalog_that_was_indexed_again_is_requested_once_more(
    ticker: Ticker, shops: Sandbox
) -> None:
    ticker.tick()
    shops.touch("strada")
    assert ticker.requested() == ["strada"]
    assert ticker.requested() == []
    assert len([key for key in ticker.run_keys if key.startswith("strada@")]) == 2


@pytest.mark.slow
def test_a_catalog_whose_runs_fail_is_requested_again_with_growing_waits(
    ticker: Ticker, shops: Sandbox
) -> None:
    ticker.tick()
    ticker.materialize("northpeak")
    requested: list[tuple[float, str | None]] = []
    for _ in range(24 * 12):
        keys = ticker.requested(minutes=5)
        requested += [((ticker.now - START) / timedelta(minutes=1), key) for key in keys]
    waits = [10, 20, 40, 80, 160, 320, 360, 360]
    assert requested == [(sum(waits[: n + 1]), "strada") for n in range(len(waits))]
    assert len(ticker.run_keys) == 2 + len(waits)  # Dagster launches a run key once

    ticker.materialize("strada")
    assert ticker.requested(days=1) == []
    shops.touch("strada")
    assert ticker.requested() == ["strada"]


def test_a_catalog_that_is_granted_again_is_requested_until_its_run_succeeds(
    ticker: Ticker, shops: Sandbox
) -> None:
    ticker.tick()
    shops.revoke("strada")
    ticker.requested(hours=1)
    shops.grant("strada", products=3)
    assert ticker.requested() == ["strada"]


def test_a_catalog_that_was_indexed_again_is_requested_until_its_run_succeeds(
    ticker: Ticker, shops: Sandbox
) -> None:
    ticker.tick()
    ticker.materialize("northpeak", "strada")
    assert ticker.requested(hours=1) == []
    shops.touch("strada")
    assert ticker.requested() == ["strada"]
    requested = [ticker.requested(minutes=5) for _ in range(6)]
    assert requested == [[], ["strada"], [], [], [], ["strada"]]
    ticker.materialize("strada")
    assert ticker.requested(days=1) == []


def test_a_cursor_that_was_reset_requests_no_run_twice(ticker: Ticker) -> None:
    ticker.tick()
    ticker.materialize("northpeak", "strada")
    ticker.cursor = None
    for _ in range(5):
        ticker.requested(hours=1)
    assert len(ticker.run_keys) == 2


def test_a_clock_that_jumped_and_went_back_delays_no_request(ticker: Ticker) -> None:
    ticker.requested(days=3650)
    ticker.now = START
    assert ticker.requested() == ["northpeak", "strada"]
    assert ticker.requested() == []


def test_a_catalog_whose_run_is_not_finished_is_not_requested_again(ticker: Ticker) -> None:
    ticker.tick()
    defs = dg.Definitions(assets=[products], resources={"octogen": ticker.octogen})
    ticker.instance.create_run_for_job(
        defs.resolve_implicit_global_asset_job_def(),
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/sensor_name": ticker.sensor.name, "dagster/partition": "strada"},
    )
    assert ticker.requested(hours=1) == ["northpeak"]


def test_awkward_catalog_keys_are_partitions_too(ticker: Ticker, shops: Sandbox) -> None:
    shops.grant("../x, y", products=3)
    assert catalog_partition_key("../x, y") in ticker.requested()


def test_a_catalog_that_is_gone_is_reported_once_and_requested_when_it_returns(
    ticker: Ticker, shops: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    ticker.tick()
    shops.revoke("strada")
    (event,) = ticker.tick().asset_events
    assert (event.asset_key, event.partition) == (products.key, "strada")
    assert event.metadata["octogen/granted"].value is False
    assert "Catalog strada is no longer listed. Its snapshots are kept." in capfd.readouterr().err
    assert gone(ticker.tick()) == []
    assert "strada" in ticker.instance.get_dynamic_partitions("octogen_catalogs")

    shops.grant("strada", products=3)
    shops.touch("strada")
    assert ticker.requested() == ["strada"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_catalog_that_vanishes_again_is_reported_again(
    ticker: Ticker, shops: Sandbox, times: int
) -> None:
    ticker.tick()
    for _ in range(times):
        shops.revoke("strada")
        assert gone(ticker.tick()) == ["strada"]
        shops.grant("strada", products=3)
        ticker.tick()


def failing(ticker: Ticker, error: Exception) -> None:
    """Let the next ticks fail with an error."""

    class Failing(CatalogSource):
        async def fetch(self, client: OctogenClient) -> CatalogList:
            raise error

    ticker.octogen = OctogenResource(api_key=ticker.octogen.api_key, catalogs=Failing())


@pytest.mark.parametrize(
    "error",
    [
        OctogenAuthenticationError("Refused.", httpx.Response(401)),
        OctogenInsufficientCreditError("Refused.", httpx.Response(402)),
        OctogenForbiddenError("Refused.", httpx.Response(403)),
        OctogenNotFoundError("Refused.", httpx.Response(404)),
        ValueError("Refused."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_listing_that_cannot_become_good_by_itself_fails_the_tick(
    ticker: Ticker, error: Exception
) -> None:
    failing(ticker, error)
    with pytest.raises(dg.Failure) as caught:
        ticker.evaluate()
    assert str(caught.value) == "The catalogs could not be listed. Refused."
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "error",
    [
        OctogenRateLimitError("Busy.", httpx.Response(429)),
        OctogenServerError("Busy.", httpx.Response(503)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_listing_that_may_become_good_by_itself_skips_each_tick(
    ticker: Ticker, error: OctogenError
) -> None:
    failing(ticker, error)
    for _ in range(5):
        skipped = ticker.evaluate()
        assert isinstance(skipped, dg.SkipReason)
        assert "the next tick tries again. Busy." in (skipped.skip_message or "")


def test_a_service_that_is_not_there_fails_the_third_tick_in_a_row(
    ticker: Ticker, shops: Sandbox
) -> None:
    there = ticker.octogen
    nowhere = OctogenResource(api_key=there.api_key, base_url="http://127.0.0.1:1/v1", attempts=1)
    for _ in range(2):  # a tick that succeeds begins a new row
        for _ in range(2):
            ticker.octogen = nowhere
            skipped = ticker.evaluate()
            assert isinstance(skipped, dg.SkipReason)
            assert (skipped.skip_message or "").startswith("The catalogs could not be listed; the")
        ticker.octogen = there
        ticker.tick()
    ticker.octogen = nowhere
    for _ in range(2):
        ticker.evaluate()
    for _ in range(3):
        with pytest.raises(dg.Failure) as caught:
            ticker.evaluate()
        assert str(caught.value).startswith(
            "The catalogs could not be listed, for the third tick in a row or longer. "
        )
    ticker.octogen = there
    shops.touch("strada")
    assert ticker.requested() == ["strada"]


def test_without_a_key_the_tick_fails_and_says_what_to_do(
    shops: Sandbox, instance: dg.DagsterInstance
) -> None:
    with pytest.raises(dg.Failure, match="set OCTOGEN_PLATFORM_API_KEY"):
        Ticker(OctogenResource(base_url=shops.base_url), instance).evaluate()


@pytest.mark.parametrize("cursor", ["not json", '{"version": 99, "requested": {}}', "[]"])
def test_a_cursor_that_cannot_be_read_starts_over_and_doubles_nothing(
    ticker: Ticker, cursor: str
) -> None:
    ticker.tick()
    ticker.cursor = cursor
    ticker.tick()
    assert len(ticker.run_keys) == 2
    assert ticker.requested() == []


def test_a_crash_before_the_cursor_is_stored_loses_and_doubles_nothing(ticker: Ticker) -> None:
    ticker.tick(crash_before_the_cursor=True)
    ticker.tick()
    assert len(ticker.run_keys) == 2


def test_the_asset_must_have_dynamic_partitions() -> None:
    with pytest.raises(ValueError, match="Asset 'plain' must have a DynamicPartitionsDefinition"):
        build_catalog_sensor(build_products_asset("plain"))


def test_the_sensor_has_the_name_the_interval_and_the_other_arguments_it_is_given() -> None:
    sensor = build_catalog_sensor(
        products, name="shops", minimum_interval_seconds=60, tags={"team": "data"}
    )
    assert (sensor.name, sensor.minimum_interval_seconds) == ("shops", 60)
    assert sensor.tags["team"] == "data"


def test_a_catalog_that_cannot_be_a_partition_is_logged_and_the_others_are_requested(
    ticker: Ticker, shops: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    shops.grant(" ", products=1)
    assert ticker.requested() == ["northpeak", "strada"]
    assert "Skipped catalog ' '. A catalog key must not be empty." in capfd.readouterr().err


def test_what_the_next_ticks_request_and_a_lost_cursor_are_logged(
    ticker: Ticker, shops: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(58):
        shops.grant(f"shop-{number:02}", products=1)
    ticker.cursor = "of another version"
    assert len(ticker.requested()) == 50
    logged = capfd.readouterr().err
    assert "The cursor is of another version or damaged: every catalog is checked anew." in logged
    assert "10 more snapshots are due; the next ticks request them." in logged


@pytest.mark.parametrize(
    ("octogen_arguments", "deadline"), [({}, LISTING_TIMEOUT), ({"deadline": 5}, 5)]
)
def test_the_listing_has_half_of_a_ticks_time(
    ticker: Ticker, octogen_arguments: dict[str, Any], deadline: float
) -> None:
    class Deadlines(CatalogSource):
        seen: ClassVar[list[float]] = []

        async def fetch(self, client: OctogenClient) -> CatalogList:
            self.seen.append(client.deadline)
            return CatalogList([])

    key = ticker.octogen.api_key
    ticker.octogen = OctogenResource(api_key=key, catalogs=Deadlines(), **octogen_arguments)
    ticker.tick()
    assert Deadlines.seen == [deadline]


class Endless(CatalogSource):
    """A source whose requests never end."""

    async def fetch(self, client: OctogenClient) -> CatalogList:
        await asyncio.Event().wait()
        raise AssertionError


HOSTS = [f"shop-{number}.example" for number in range(40)]


@pytest.mark.parametrize(
    "source",
    [GrantedCatalogs(), ShopCatalogs(HOSTS), Endless()],
    ids=lambda source: type(source).__name__,
)
def test_a_tick_ends_in_time_with_any_server_and_so_do_its_threads(
    ticker: Ticker, monkeypatch: pytest.MonkeyPatch, source: CatalogSource
) -> None:
    monkeypatch.setattr(catalog_sensor, "LISTING_TIMEOUT", 0.5)
    monkeypatch.setattr(catalog_sensor, "_MAX_LISTING_SECONDS", 0.6)
    slow = b"HTTP/1.1 200 OK\r\nx-slow: "
    with RawServer(lambda _: itertools.chain([slow], dripping(lambda: server))) as server:
        ticker.octogen = OctogenResource(api_key="key", base_url=server.base_url, catalogs=source)
        skipped = ticker.evaluate()
        assert not server.closing.is_set()
    assert isinstance(skipped, dg.SkipReason)
    expected = "The catalogs could not be listed; the next tick tries again. "
    assert (skipped.skip_message or "").startswith(expected)
    assert '"failed_ticks":1,' in str(ticker.cursor)
    for thread in threading.enumerate():
        if thread.name == "octogen-call":
            thread.join(60)
            assert not thread.is_alive()
