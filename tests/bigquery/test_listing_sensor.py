"""The listing sensor: what it asks for, when, and what it does about failures."""

import itertools
import threading

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from octogen_dagster.bigquery import listing_sensor
from octogen_dagster.bigquery.linked_datasets import build_linked_datasets_asset
from octogen_dagster.bigquery.listing_sensor import build_listing_sensor
from octogen_dagster.bigquery.listing_sources import ExchangeSource, OctogenSource, StaticSource
from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.control_plane.tools import OctogenMCP, SharedListing
from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sandbox.hub.faults import HubFault
from octogen_dagster.sandbox.hub.names import project_number
from octogen_dagster.sandbox.hub.server import Hub
from octogen_dagster.sandbox.hub.state import ON_COMMAND
from tests.bigquery.daemon import Daemon, reported

ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin("127.0.0.1", 1), "repository"), "job"
)


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
    daemon = Daemon(instance, OctogenSource())
    hub.share("northpeak", grant=ON_COMMAND)
    assert daemon.asked() == ["northpeak"]
    assert daemon.asked() == []
    hub.grant_access("northpeak")
    assert daemon.asked() == ["northpeak"]
    assert daemon.subscribed() == ["northpeak"]
    assert daemon.asked() == []


def test_a_project_that_is_named_by_its_number_keeps_its_partition(
    hub: Hub, instance: dg.DagsterInstance
) -> None:
    daemon = Daemon(instance, ExchangeSource(hub.exchange))
    hub.share("northpeak")
    assert daemon.asked() == ["northpeak"]
    hub.settings.get_listing_project = "number"
    result = daemon.tick()
    assert (result.run_requests, reported(result)) == ([], {})
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
    requested = [request.partition_key for request in daemon.tick().run_requests]
    assert sorted(requested) == [listing_partition_key(theirs)] if known else keys
    assert sorted(instance.get_dynamic_partitions("octogen_listings")) == keys


def test_a_listing_that_is_listed_under_both_names_of_its_project_has_both_partitions(
    hub: Hub, instance: dg.DagsterInstance
) -> None:
    resource = hub.share("northpeak")
    number = resource.replace("octogen-sandbox", project_number("octogen-sandbox"))
    instance.add_dynamic_partitions("octogen_listings", [listing_partition_key(resource)])
    daemon = Daemon(instance, StaticSource([resource, number]))
    requested = [request.partition_key for request in daemon.tick().run_requests]
    assert sorted(requested) == sorted(map(listing_partition_key, (resource, number)))
    assert len(hub.subscriptions) == 1


@pytest.mark.parametrize("key", ["northpeak", "a:b:c", "p:us:e:", "", "p:u s:e:l"])
def test_a_partition_that_is_no_listing_is_passed_over(
    daemon: Daemon, hub: Hub, key: str, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.instance.add_dynamic_partitions("octogen_listings", [key])
    hub.share("northpeak")
    assert daemon.asked() == ["northpeak"]
    assert daemon.asked() == []
    assert (
        f"1 partitions of 'octogen_listings' are of no listing, as {key!r}, and are passed over: "
        "delete them."
    ) in capfd.readouterr().err


def test_a_catalog_whose_listing_cannot_be_one_is_said_to_be_left_out(
    hub: Hub,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    hub.share("northpeak")
    listings = OctogenMCP.listings
    odd = SharedListing("odd", "nonsense")
    monkeypatch.setattr(OctogenMCP, "listings", lambda *arguments: [odd, *listings(*arguments)])
    assert Daemon(instance, OctogenSource()).asked() == ["northpeak"]
    assert (
        "1 of 1 that are left out. Catalog odd: 'nonsense' is not the name of a listing"
        in capfd.readouterr().err
    )


def test_only_the_catalogs_that_the_source_names(hub: Hub, instance: dg.DagsterInstance) -> None:
    hub.share("northpeak")
    hub.share("strada")
    assert Daemon(instance, OctogenSource(catalogs=["strada"])).asked() == ["strada"]


def test_a_cursor_that_was_reset_asks_again(
    hub: Hub, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(instance, ExchangeSource(hub.exchange))
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
    monkeypatch.setattr(listing_sensor, "TICK_TIMEOUT", 0.2)
    hub.share("northpeak")
    hub.inject(HubFault("latency", 10.0, times=2))
    result = daemon.tick()
    assert "They were not read within the 0.2 s that a tick has." in result.skip_message
    # What is still being read holds up no process that is to end.
    reading = [each for each in threading.enumerate() if each.name == "octogen-listings"]
    assert reading
    assert all(each.daemon for each in reading)


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


@pytest.mark.parametrize("status", ["QUEUED", "STARTED"])
def test_a_run_that_is_not_finished_is_not_asked_for_again(
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
    daemon = Daemon(instance, StaticSource([resource]))
    assert daemon.asked() == ["northpeak"]
    with pytest.raises(OctogenBigQueryInputError, match="'northpeak' is not the name of a listing"):
        StaticSource(["northpeak"])


def test_an_asset_without_dynamic_partitions_is_refused(hub: Hub) -> None:
    @dg.asset
    def other() -> None: ...

    with pytest.raises(ValueError, match="DynamicPartitionsDefinition with a name"):
        build_listing_sensor(OctogenSource(), other)
