"""The listing sensor: what it requests, when, and how it handles failures."""

import itertools
from typing import Any

import dagster as dg
import pytest

from octogen_dagster.bigquery.linked_datasets import build_linked_datasets_asset
from octogen_dagster.bigquery.listing_sensor import build_listing_sensor
from octogen_dagster.bigquery.listing_sources import (
    ExchangeSource,
    OctogenSource,
    Source,
    StaticSource,
)
from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.control_plane.tools import OctogenMCP, SharedListing
from octogen_dagster.sandbox.listings import project_number
from tests.bigquery.daemon import Daemon, end_of_reads, reported
from tests.runs import ORIGIN
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import HubFault

pytestmark = pytest.mark.slow


def test_new_listings_become_datasets_and_then_rest(daemon: Daemon, hub: Hub) -> None:
    hub.share("northpeak")
    hub.share("strada")
    assert daemon.requested() == ["northpeak", "strada"]
    assert daemon.subscribed() == ["northpeak", "strada"]
    for minutes in (0, 5, 60, 600):
        result = daemon.tick(minutes=minutes)
        assert not result.run_requests
        assert result.skip_reason == dg.SkipReason("None of 2 listings is due.")
        assert reported(result) == {}
    assert len(hub.subscriptions) == 2


def test_a_grant_that_is_late_is_requested_again_with_growing_waits(
    daemon: Daemon, hub: Hub
) -> None:
    hub.share("northpeak", granted=False)
    assert daemon.requested() == ["northpeak"]
    attempts = [daemon.requested(minutes=5) for _ in range(30)]
    times = [5 * (number + 1) for number, keys in enumerate(attempts) if keys]
    # Octogen reports when it grants access.
    assert times == ([] if daemon.control_plane else [10, 30, 70, 150])
    assert daemon.subscribed() == []
    attempts = [daemon.requested(minutes=30) for _ in range(100)]
    times = [30 * (number + 1) for number, keys in enumerate(attempts) if keys]
    assert daemon.control_plane or [b - a for a, b in itertools.pairwise(times)][-3:] == [360] * 3

    hub.grant_access("northpeak")
    while not daemon.requested(minutes=30):
        pass
    assert daemon.subscribed() == ["northpeak"]
    assert len(hub.subscriptions) == 1


@pytest.mark.parametrize("cell", [{"status": "preparing"}, {"status": "melted"}, {"status": None}])
def test_a_pending_listing_is_requested_once_and_at_once_when_it_is_granted(
    hub: Hub, instance: dg.DagsterInstance, cell: dict[str, Any]
) -> None:
    daemon = Daemon(instance, OctogenSource())
    hub.share("northpeak", granted=False)
    hub.inject(HubFault("cell", cell))
    assert daemon.requested() == ["northpeak"]
    assert [daemon.requested(minutes=120) for _ in range(12)] == [[]] * 12
    hub.clear_faults()
    hub.grant_access("northpeak")
    assert daemon.requested() == ["northpeak"]
    assert daemon.subscribed() == ["northpeak"]
    assert daemon.requested() == []


def test_a_project_that_is_named_by_its_number_keeps_its_partition(
    hub: Hub, instance: dg.DagsterInstance
) -> None:
    daemon = Daemon(instance, ExchangeSource(hub.exchange))
    hub.share("northpeak")
    assert daemon.requested() == ["northpeak"]
    hub.settings.get_listing_project = "number"
    result = daemon.tick()
    assert not result.run_requests
    assert reported(result) == {}
    assert len(instance.get_dynamic_partitions("octogen_listings")) == 1


@pytest.mark.parametrize("known", [False, True])
def test_listings_of_two_publishers_are_two_though_one_is_named_by_its_number(
    hub: Hub, instance: dg.DagsterInstance, known: bool
) -> None:
    mine = hub.share("northpeak")
    theirs = hub.share("strada", project="somebody-else", listing_id="northpeak")
    theirs = theirs.replace("somebody-else", project_number("somebody-else"))
    keys = sorted(map(listing_partition_key, (mine, theirs)))
    if known:
        instance.add_dynamic_partitions("octogen_listings", [listing_partition_key(mine)])
    daemon = Daemon(instance, StaticSource([theirs] if known else [mine, theirs]))
    daemon.asset = build_linked_datasets_asset(
        dataset_id=lambda listing: "mine" if listing == mine else "theirs", grant_waits=()
    )
    assert sorted(daemon.requested_keys()) == ([listing_partition_key(theirs)] if known else keys)
    assert sorted(instance.get_dynamic_partitions("octogen_listings")) == keys


def test_a_listing_that_is_listed_under_both_names_of_its_project_has_one_partition(
    hub: Hub, instance: dg.DagsterInstance
) -> None:
    resource = hub.share("northpeak")
    number = resource.replace("octogen-sandbox", project_number("octogen-sandbox"))
    daemon = Daemon(instance, StaticSource([number, resource]))
    (key,) = daemon.requested_keys()
    assert instance.get_dynamic_partitions("octogen_listings") == [key]
    assert daemon.requested_keys() == []


@pytest.mark.parametrize("key", ["northpeak", "a:b:c", "p:us:e:", "", "p:u s:e:l"])
def test_a_partition_that_is_no_listing_is_skipped(
    daemon: Daemon, hub: Hub, key: str, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.instance.add_dynamic_partitions("octogen_listings", [key])
    hub.share("northpeak")
    assert daemon.requested() == ["northpeak"]
    assert daemon.requested() == []
    warning = (
        "1 partitions of 'octogen_listings' are no listings and are skipped, for example "
        f"{key!r}: delete them."
    )
    assert capfd.readouterr().err.count(warning) == 1


def test_a_catalog_with_an_invalid_listing_is_warned_of_once(
    hub: Hub,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    hub.share("northpeak")
    listings = OctogenMCP.listings
    odd = SharedListing("odd", "nonsense")
    monkeypatch.setattr(OctogenMCP, "listings", lambda *arguments: [odd, *listings(*arguments)])
    daemon = Daemon(instance, OctogenSource())
    assert daemon.requested() == ["northpeak"]
    assert daemon.requested() == []
    warning = "Skipped a listing: Catalog odd: 'nonsense' is not the name of a listing"
    assert capfd.readouterr().err.count(warning) == 1


def test_only_the_source_s_catalogs_are_requested(hub: Hub, instance: dg.DagsterInstance) -> None:
    hub.share("northpeak")
    hub.share("strada")
    assert Daemon(instance, OctogenSource(catalogs=["strada"])).requested() == ["strada"]


def test_a_cursor_that_was_reset_requests_again(hub: Hub, instance: dg.DagsterInstance) -> None:
    daemon = Daemon(instance, ExchangeSource(hub.exchange))
    hub.share("northpeak", granted=False)
    for _ in range(5):
        daemon.tick(minutes=400)
    hub.grant_access("northpeak")
    daemon.cursor = None
    daemon.tick(minutes=1)
    assert daemon.subscribed() == ["northpeak"]


def test_a_tick_that_takes_too_long_is_skipped(
    source: Source, instance: dg.DagsterInstance, hub: Hub
) -> None:
    hub.share("northpeak")
    hub.inject(HubFault("latency", 10.0, times=2))
    result = Daemon(instance, source, tick_timeout=0.2).evaluate()
    assert isinstance(result, dg.SkipReason)
    assert "did not answer " in str(result.skip_message)
    end_of_reads()


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
    hub.share("strada", granted=False)
    daemon.tick(crash=crash)
    daemon.tick(minutes=1)
    daemon.tick(minutes=1)
    assert daemon.subscribed() == ["northpeak"]
    assert len(daemon.run_keys) == 2
    outcomes = [call.outcome for call in hub.calls if call.method == "SubscribeListing"]
    assert outcomes == (["OK"] if daemon.control_plane else ["OK", "PERMISSION_DENIED"])


@pytest.mark.parametrize("status", ["QUEUED", "STARTED"])
def test_a_listing_whose_run_is_not_finished_is_not_requested_again(
    daemon: Daemon, hub: Hub, status: str
) -> None:
    key = listing_partition_key(hub.share("northpeak"))
    daemon.instance.add_dynamic_partitions("octogen_listings", [key])
    job = dg.Definitions(
        assets=[daemon.asset], resources=daemon.resources
    ).get_implicit_global_asset_job_def()
    started = daemon.instance.create_run_for_job(
        job,
        tags={"dagster/sensor_name": "octogen_listing_sensor", "dagster/partition": key},
        status=dg.DagsterRunStatus[status],
        remote_job_origin=ORIGIN,
    )
    assert daemon.requested() == []
    daemon.instance.delete_run(started.run_id)
    assert daemon.requested() == ["northpeak"]


@pytest.mark.parametrize("cursor", ["{", '{"version": 99}', '{"requested": 3}', "old"])
def test_a_cursor_that_cannot_be_read_loses_nothing(daemon: Daemon, hub: Hub, cursor: str) -> None:
    hub.share("northpeak")
    hub.share("strada", granted=False)
    daemon.tick()
    daemon.cursor = cursor
    assert daemon.requested(minutes=1) == ["strada"]
    assert len(daemon.run_keys) == 3


def test_the_listings_of_a_static_source_are_requested(
    hub: Hub, instance: dg.DagsterInstance
) -> None:
    resource = hub.share("northpeak")
    hub.share("strada")
    daemon = Daemon(instance, StaticSource([resource]))
    assert daemon.requested() == ["northpeak"]


def test_an_asset_without_dynamic_partitions_is_refused(hub: Hub) -> None:
    @dg.asset
    def other() -> None: ...

    with pytest.raises(ValueError, match="DynamicPartitionsDefinition with a name"):
        build_listing_sensor(OctogenSource(), other)


def test_the_sensor_has_the_name_the_interval_and_the_other_arguments_it_is_given(
    daemon: Daemon,
) -> None:
    sensor = build_listing_sensor(
        OctogenSource(),
        daemon.asset,
        name="shops",
        minimum_interval_seconds=60,
        tags={"team": "data"},
    )
    assert (sensor.name, sensor.minimum_interval_seconds) == ("shops", 60)
    assert sensor.tags["team"] == "data"
    assert sensor.required_resource_keys == {"analytics_hub", "octogen_control_plane"}


def test_subscriptions_are_checked_every_quarter_of_an_hour(
    hub: Hub, instance: dg.DagsterInstance
) -> None:
    daemon = Daemon(instance, ExchangeSource(hub.exchange))
    hub.share("northpeak")
    for _ in range(31):
        daemon.tick(minutes=1)
    checks = [call.method for call in hub.calls].count("ListSubscriptions")
    assert checks == 1 + 2  # the run's, and two of the ticks


def test_a_clock_that_jumped_and_went_back_delays_no_check(daemon: Daemon, hub: Hub) -> None:
    hub.share("northpeak")
    daemon.tick()
    daemon.tick(minutes=365 * 24 * 60)
    hub.make_stale("northpeak")
    daemon.now = 1_000_000
    assert reported(daemon.tick(minutes=20)) == {"northpeak": "stale"}


def test_a_check_that_takes_too_long_does_not_stop_the_tick(
    hub: Hub,
    instance: dg.DagsterInstance,
    capfd: pytest.CaptureFixture[str],
) -> None:
    resources = [hub.share("northpeak"), hub.share("elsewhere", location="eu")]
    first = Daemon(instance, StaticSource(resources))
    assert sorted(first.requested()) == ["elsewhere", "northpeak"]
    source = StaticSource([*resources, hub.share("strada")])
    daemon = Daemon(instance, source, tick_timeout=2.0)
    # Each of the two calls is in time, both together are not.
    hub.inject(HubFault("latency", 1.4, method="ListSubscriptions", times=2))
    assert daemon.requested() == ["strada"]
    assert (
        "Subscriptions could not be checked, a later tick checks them. The subscriptions of "
        in capfd.readouterr().err
    )
