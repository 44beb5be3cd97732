"""The listing sensor, tick by tick, with the daemon's part played in between."""

import itertools
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from octogen_dagster import listing_sensor
from octogen_dagster.bigquery_resources import AnalyticsHubResource, OctogenControlPlaneResource
from octogen_dagster.linked_datasets import build_linked_datasets_asset
from octogen_dagster.listing_plan import ListingCursor, World, plan_tick
from octogen_dagster.listing_sensor import build_listing_sensor
from octogen_dagster.listing_sources import ExchangeSource, OctogenSource, StaticSource
from octogen_dagster.partitions import listing_partition_key
from octogen_dagster.sandbox.hub import Hub
from octogen_dagster.sandbox.hub_faults import HubFault
from octogen_dagster.sandbox.hub_state import ON_COMMAND
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.sharing.analytics_hub import AnalyticsHub

PROJECT = "my-project"
PRINCIPAL = "serviceAccount:reader@my-project.iam.gserviceaccount.com"
MINUTE = 60


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Sandbox(catalogs={"northpeak": 5, "strada": 5}, hub=True) as sandbox:
        for name, value in sandbox.hub.environment.items():
            monkeypatch.setenv(name, value)
        yield sandbox.hub


class Daemon:
    """Ticks the sensor and runs what it requests."""

    def __init__(self, hub: Hub, instance: dg.DagsterInstance, source: Any) -> None:
        self.instance = instance
        self.control_plane = isinstance(source, OctogenSource)
        self.asset = build_linked_datasets_asset(control_plane=self.control_plane, grant_waits=())
        self.sensor = build_listing_sensor(source, self.asset)
        self.resources: dict[str, Any] = {
            "analytics_hub": AnalyticsHubResource(project=PROJECT),
            "octogen_control_plane": OctogenControlPlaneResource(principal=PRINCIPAL),
        }
        self.cursor: str | None = None
        self.now = 1_000_000
        self.completed_at: float | None = None
        self.run_keys: set[str] = set()

    def tick(self, *, minutes: int = 0, crash: str = "") -> Any:
        """A tick some minutes later; a crash is before the runs or before the cursor."""
        self.now += minutes * MINUTE
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources=self.resources
        )
        context._last_tick_completion_time = self.completed_at
        result: Any = self.sensor._raw_fn(context)  # a call passes resources as arguments
        if isinstance(result, dg.SkipReason):
            return result
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        for request in result.dynamic_partitions_requests:
            self.instance.add_dynamic_partitions(
                request.partitions_def_name, request.partition_keys
            )
        if crash != "before the runs":
            for request in result.run_requests:
                if request.run_key not in self.run_keys:
                    self.run_keys.add(request.run_key)
                    self.run(request.partition_key)
        if not crash:
            self.cursor, self.completed_at = result.cursor, float(self.now)
        return result

    def run(self, key: str) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [self.asset],
            partition_key=key,
            instance=self.instance,
            raise_on_error=False,
            resources=self.resources,
        )

    def asked(self, **tick: Any) -> list[str]:
        """The listings that a tick asks for."""
        result = self.tick(**tick)
        return [request.partition_key.rpartition(":")[2] for request in result.run_requests]

    def subscribed(self) -> list[str]:
        keys = self.instance.get_materialized_partitions(self.asset.key)
        return sorted(key.rpartition(":")[2] for key in keys)


@pytest.fixture(params=["exchange", "octogen"])
def daemon(
    request: pytest.FixtureRequest,
    hub: Hub,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> Daemon:
    source = ExchangeSource(hub.exchange) if request.param == "exchange" else OctogenSource()
    made = Daemon(hub, instance, source)
    monkeypatch.setattr(listing_sensor, "_seconds", lambda: made.now)
    return made


def reported(result: Any) -> dict[str, str]:
    return {
        event.partition.rpartition(":")[2]: event.metadata["octogen/state"].value
        for event in result.asset_events
    }


def test_new_listings_become_datasets_and_then_rest(daemon: Daemon, hub: Hub) -> None:
    hub.share("northpeak")
    hub.share("strada")
    assert daemon.asked() == ["northpeak", "strada"]
    assert daemon.subscribed() == ["northpeak", "strada"]
    for minutes in (0, 5, 60, 600):
        result = daemon.tick(minutes=minutes)
        assert result.run_requests == []
        assert result.skip_reason.skip_message == "None of 2 listings is due."
        assert reported(result) == {}
    assert len(hub.subscriptions) == 2


def test_a_grant_that_is_late_is_asked_for_again_with_growing_waits(
    daemon: Daemon, hub: Hub
) -> None:
    hub.share("northpeak", grant=ON_COMMAND)
    assert daemon.asked() == ["northpeak"]
    asks = [daemon.asked(minutes=5) for _ in range(30)]
    times = [5 * (number + 1) for number, ask in enumerate(asks) if ask]
    # Octogen says itself when it grants access.
    assert times == ([] if daemon.control_plane else [10, 30, 70, 150])
    assert daemon.subscribed() == []
    asks = [daemon.asked(minutes=30) for _ in range(100)]
    times = [30 * (number + 1) for number, ask in enumerate(asks) if ask]
    assert daemon.control_plane or [b - a for a, b in itertools.pairwise(times)][-3:] == [360] * 3

    hub.grant_access("northpeak")
    while not daemon.asked(minutes=30):
        pass
    assert daemon.subscribed() == ["northpeak"]
    assert len(hub.subscriptions) == 1


def test_what_octogen_says_is_granted_is_asked_for_at_once(
    hub: Hub, instance: dg.DagsterInstance
) -> None:
    daemon = Daemon(hub, instance, OctogenSource())
    hub.share("northpeak", grant=ON_COMMAND)
    assert daemon.asked() == ["northpeak"]
    assert daemon.asked() == []
    hub.grant_access("northpeak")
    assert daemon.asked() == ["northpeak"]
    assert daemon.subscribed() == ["northpeak"]
    assert daemon.asked() == []


def test_a_revoked_subscription_is_reported_and_made_again_when_granted(
    daemon: Daemon, hub: Hub
) -> None:
    hub.share("northpeak")
    daemon.tick()
    hub.revoke_access("northpeak")
    assert reported(daemon.tick(minutes=20)) == {"northpeak": "revoked"}
    assert reported(daemon.tick(minutes=20)) == {}

    hub.grant_access("northpeak")
    for _ in range(100):
        daemon.tick(minutes=20)
        if hub.subscriptions[-1].state == "STATE_ACTIVE":
            break
    active = [entry for entry in hub.subscriptions if entry.state == "STATE_ACTIVE"]
    assert len(active) == 1
    assert hub.datasets(PROJECT) == {"octogen_northpeak": active[0].name}
    daemon.tick(minutes=20)
    assert [daemon.asked(minutes=20) for _ in range(40)] == [[]] * 40


def test_a_subscription_that_the_user_deleted_is_reported_and_not_made_again(
    hub: Hub, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(hub, instance, ExchangeSource(hub.exchange))
    monkeypatch.setattr(listing_sensor, "_seconds", lambda: daemon.now)
    hub.share("northpeak")
    daemon.tick()
    with AnalyticsHub() as google:
        google.delete(hub.subscriptions[0].name)
    assert reported(daemon.tick(minutes=20)) == {"northpeak": "missing"}
    assert [daemon.asked(minutes=60) for _ in range(10)] == [[]] * 10


def test_what_octogen_does_not_know_of_yet_is_not_called_revoked(
    hub: Hub, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(hub, instance, OctogenSource())
    daemon.asset = build_linked_datasets_asset(control_plane=False, grant_waits=())
    monkeypatch.setattr(listing_sensor, "_seconds", lambda: daemon.now)
    with daemon.resources["octogen_control_plane"].control_plane() as octogen:
        octogen.register(PROJECT, PRINCIPAL)
    hub.share("northpeak")
    assert daemon.asked() == ["northpeak"]
    for _ in range(20):
        result = daemon.tick(minutes=20)
        assert (result.run_requests, reported(result)) == ([], {})


def test_a_project_that_is_named_by_its_number_keeps_its_partition(
    hub: Hub, instance: dg.DagsterInstance
) -> None:
    daemon = Daemon(hub, instance, ExchangeSource(hub.exchange))
    hub.share("northpeak")
    assert daemon.asked() == ["northpeak"]
    hub.settings.get_listing_project = "number"
    result = daemon.tick()
    assert (result.run_requests, reported(result)) == ([], {})
    assert len(instance.get_dynamic_partitions("octogen_listings")) == 1


def test_another_publisher_s_subscription_hides_no_lapse(
    hub: Hub, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = hub.share("northpeak")
    theirs = hub.share("strada", project="somebody-else", listing_id="northpeak")
    daemon = Daemon(hub, instance, StaticSource([mine]))
    monkeypatch.setattr(listing_sensor, "_seconds", lambda: daemon.now)
    daemon.tick()
    daemon.instance.add_dynamic_partitions("octogen_listings", [listing_partition_key(theirs)])
    daemon.asset = build_linked_datasets_asset(dataset_id=lambda _: "theirs", grant_waits=())
    assert daemon.run(listing_partition_key(theirs)).success
    hub.revoke_access("northpeak")
    assert reported(daemon.tick(minutes=20)) == {"northpeak": "revoked"}


def test_a_cursor_that_was_reset_asks_again(
    hub: Hub, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(hub, instance, ExchangeSource(hub.exchange))
    monkeypatch.setattr(listing_sensor, "_seconds", lambda: daemon.now)
    hub.share("northpeak", grant=ON_COMMAND)
    for _ in range(5):
        daemon.tick(minutes=400)
    hub.grant_access("northpeak")
    daemon.cursor = None
    daemon.tick(minutes=1)
    assert daemon.subscribed() == ["northpeak"]


def test_a_tick_that_takes_too_long_is_skipped(
    daemon: Daemon, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_sensor, "SECONDS_FOR_A_TICK", 0.2)
    hub.share("northpeak")
    hub.inject(HubFault("latency", 1.0, times=2))
    result = daemon.tick()
    assert "They were not read within the 0.2 s that a tick has." in result.skip_message


def test_what_was_just_granted_is_asked_for_before_all_others() -> None:
    statuses = {f"p:us:e:{number:03}": "pending" for number in range(500)}
    cursor = ListingCursor()
    for tick in range(10):
        result = plan_tick(cursor, World(statuses, statuses, (), (), {}, tick))
        cursor = result.cursor
    assert len(result.due) == 50
    statuses["p:us:e:123"] = "awaiting_subscription"
    statuses |= {f"p:us:e:new-{number}": "" for number in range(60)}
    result = plan_tick(cursor, World(statuses, statuses, (), (), {}, 11))
    assert result.due[0][0] == "p:us:e:123"


def test_a_grant_that_is_seen_while_a_run_is_unfinished_is_not_forgotten() -> None:
    key = "p:us:e:l"
    cursor = plan_tick(ListingCursor(), World({key: "pending"}, [key], (), (), {}, 0)).cursor
    busy = plan_tick(cursor, World({key: "awaiting_subscription"}, [key], (), [key], {}, 1))
    assert busy.due == []
    after = plan_tick(busy.cursor, World({key: "awaiting_subscription"}, [key], (), (), {}, 2))
    assert [due for due, _ in after.due] == [key]


def test_reports_of_a_tick_are_bounded_and_none_is_lost() -> None:
    keys = [f"p:us:e:{number:03}" for number in range(250)]
    cursor = ListingCursor()
    for tick in range(5):
        cursor = plan_tick(cursor, World(dict.fromkeys(keys, ""), keys, keys, (), {}, tick)).cursor
    gone: list[str] = []
    for tick in range(4):
        result = plan_tick(cursor, World({}, keys, keys, (), {}, 10 + tick))
        assert len(result.gone) <= 100
        gone, cursor = gone + result.gone, result.cursor
    assert sorted(gone) == keys


def test_a_stale_subscription_is_reported_once(daemon: Daemon, hub: Hub) -> None:
    hub.share("northpeak")
    daemon.tick()
    hub.make_stale("northpeak")
    assert reported(daemon.tick(minutes=20)) == {"northpeak": "stale"}
    assert reported(daemon.tick(minutes=20)) == {}
    assert daemon.asked(minutes=600) == []


def test_a_listing_that_vanished_is_reported_once_and_its_partition_kept(
    daemon: Daemon, hub: Hub
) -> None:
    resource = hub.share("northpeak")
    hub.share("strada")
    daemon.tick()
    hub.remove_listing("northpeak")
    result = daemon.tick(minutes=20)
    assert reported(result)["northpeak"] in ("gone", "revoked")
    for _ in range(3):
        assert "northpeak" not in reported(daemon.tick(minutes=20))
    keys = daemon.instance.get_dynamic_partitions("octogen_listings")
    assert listing_partition_key(resource) in keys


@pytest.mark.parametrize("crash", ["before the runs", "before the cursor"])
def test_a_crash_loses_and_doubles_nothing(daemon: Daemon, hub: Hub, crash: str) -> None:
    hub.share("northpeak")
    hub.share("strada", grant=ON_COMMAND)
    daemon.tick(crash=crash)
    daemon.tick(minutes=1)
    daemon.tick(minutes=1)
    assert daemon.subscribed() == ["northpeak"]
    assert len(daemon.run_keys) == 2
    outcomes = [call.outcome for call in hub.calls if call.method == "SubscribeListing"]
    assert outcomes == (["OK"] if daemon.control_plane else ["OK", "PERMISSION_DENIED"])


def test_a_run_that_is_not_finished_is_not_asked_for_again(daemon: Daemon, hub: Hub) -> None:
    key = listing_partition_key(hub.share("northpeak"))
    daemon.instance.add_dynamic_partitions("octogen_listings", [key])
    job = dg.Definitions(
        assets=[daemon.asset], resources=daemon.resources
    ).get_implicit_global_asset_job_def()
    started = daemon.instance.create_run_for_job(
        job,
        tags={"dagster/sensor_name": "octogen_listing_sensor", "dagster/partition": key},
        status=dg.DagsterRunStatus.STARTED,
    )
    assert daemon.asked() == []
    daemon.instance.delete_run(started.run_id)
    assert daemon.asked() == ["northpeak"]


def test_a_source_that_fails_skips_the_tick(daemon: Daemon, hub: Hub) -> None:
    hub.share("northpeak")
    hub.inject(HubFault("status", "PERMISSION_DENIED", method="ListListings"))
    hub.inject(HubFault("html", method="list_bigquery_listing_resources"))
    result = daemon.tick()
    assert isinstance(result, dg.SkipReason)
    assert "The listings could not be read, the next tick tries again." in str(result.skip_message)
    hub.clear_faults()
    assert daemon.asked() == ["northpeak"]


def test_a_check_that_fails_does_not_stop_the_tick(hub: Hub, instance: dg.DagsterInstance) -> None:
    daemon = Daemon(hub, instance, ExchangeSource(hub.exchange))
    hub.share("northpeak")
    daemon.tick()
    hub.share("strada")
    hub.inject(HubFault("status", "PERMISSION_DENIED", method="ListSubscriptions", times=1))
    context = dg.build_sensor_context(instance=instance, cursor=None, resources=daemon.resources)
    result: Any = daemon.sensor._raw_fn(context)
    assert [request.partition_key.rpartition(":")[2] for request in result.run_requests] == [
        "strada"
    ]


@pytest.mark.parametrize("cursor", ["{", '{"version": 99}', '{"asks": 3}', "old"])
def test_a_cursor_that_cannot_be_read_loses_nothing(daemon: Daemon, hub: Hub, cursor: str) -> None:
    hub.share("northpeak")
    hub.share("strada", grant=ON_COMMAND)
    daemon.tick()
    daemon.cursor = cursor
    assert daemon.asked(minutes=1) == ["strada"]
    assert len(daemon.run_keys) == 3


def test_listings_that_are_written_down(hub: Hub, instance: dg.DagsterInstance) -> None:
    resource = hub.share("northpeak")
    hub.share("strada")
    daemon = Daemon(hub, instance, StaticSource([resource]))
    assert daemon.asked() == ["northpeak"]
    wrong = Daemon(hub, instance, StaticSource(["northpeak"]))
    assert "is not the name of a listing" in wrong.tick().skip_message


def test_an_asset_without_dynamic_partitions_is_refused(hub: Hub) -> None:
    @dg.asset
    def other() -> None: ...

    with pytest.raises(ValueError, match="DynamicPartitionsDefinition with a name"):
        build_listing_sensor(OctogenSource(), other)


def test_ten_thousand_listings_take_two_hundred_ticks_and_no_more() -> None:
    statuses = {f"p:us:e:{number:05}": "" for number in range(10_000)}
    cursor, known, subscribed, ticks = ListingCursor(), set(), set(), 0
    requested: list[str] = []
    while True:
        tick = plan_tick(cursor, World(statuses, known, subscribed, (), {}, ticks * MINUTE))
        if not tick.due:
            break
        ticks += 1
        assert len(tick.due) <= 50
        assert len(tick.new) <= 1000
        known |= set(tick.new)
        subscribed |= {key for key, _ in tick.due}
        requested += [key for key, _ in tick.due]
        cursor, lost = ListingCursor.load(tick.cursor.dump(), 0)
        assert not lost
    assert ticks == 200
    assert sorted(requested) == sorted(statuses)
