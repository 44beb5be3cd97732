"""The listing sensor: which subscriptions it says are not in order."""

from typing import Any

import dagster as dg
import pytest

from octogen_dagster.bigquery import listing_sensor
from octogen_dagster.bigquery.linked_datasets import build_linked_datasets_asset
from octogen_dagster.bigquery.listing_sources import ExchangeSource, OctogenSource, StaticSource
from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.sandbox.hub import messages as hub_messages
from octogen_dagster.sandbox.hub.faults import HubFault
from octogen_dagster.sandbox.hub.server import Hub
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from tests.bigquery.daemon import PRINCIPAL, PROJECT, Daemon, reported


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
    daemon = Daemon(instance, ExchangeSource(hub.exchange))
    monkeypatch.setattr(listing_sensor, "_seconds", lambda: daemon.now)
    hub.share("northpeak")
    daemon.tick()
    with AnalyticsHub() as google:
        google.delete(hub.subscriptions[0].name)
    assert reported(daemon.tick(minutes=20)) == {"northpeak": "missing"}
    assert [daemon.asked(minutes=60) for _ in range(10)] == [[]] * 10


def test_a_stale_subscription_is_reported_once(daemon: Daemon, hub: Hub) -> None:
    hub.share("northpeak")
    daemon.tick()
    hub.make_stale("northpeak")
    assert reported(daemon.tick(minutes=20)) == {"northpeak": "stale"}
    assert reported(daemon.tick(minutes=20)) == {}
    assert daemon.asked(minutes=600) == []


def test_a_state_that_is_newer_than_google_s_client_is_no_lapse(
    daemon: Daemon, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.share("northpeak")
    daemon.tick()
    monkeypatch.setitem(hub_messages._STATES, "STATE_ACTIVE", 7)
    assert checked(daemon, hub) == {}
    hub.make_stale("northpeak")
    assert checked(daemon, hub) == {"northpeak": "stale"}


def test_a_project_that_subscriptions_name_by_number_is_no_lapse(daemon: Daemon, hub: Hub) -> None:
    hub.share("northpeak")
    daemon.tick()
    hub.settings.listing_project = "number"
    assert checked(daemon, hub) == {}


def checked(daemon: Daemon, hub: Hub) -> dict[str, str]:
    """What a tick reports that looks at the subscriptions."""
    before = [call.method for call in hub.calls].count("ListSubscriptions")
    found = reported(daemon.tick(minutes=20))
    assert [call.method for call in hub.calls].count("ListSubscriptions") == before + 1
    return found


def test_subscriptions_are_looked_at_every_quarter_of_an_hour(
    hub: Hub, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(instance, ExchangeSource(hub.exchange))
    monkeypatch.setattr(listing_sensor, "_seconds", lambda: daemon.now)
    hub.share("northpeak")
    for _ in range(31):
        daemon.tick(minutes=1)
    lookups = [call.method for call in hub.calls].count("ListSubscriptions")
    assert lookups == 1 + 2  # the run's, and those of the ticks


def test_a_clock_that_jumped_and_went_back_delays_no_look(daemon: Daemon, hub: Hub) -> None:
    hub.share("northpeak")
    daemon.tick()
    daemon.tick(minutes=365 * 24 * 60)
    hub.make_stale("northpeak")
    daemon.now = 1_000_000
    assert checked(daemon, hub) == {"northpeak": "stale"}


def test_what_octogen_says_is_reported_and_forgotten_when_it_says_otherwise(
    hub: Hub, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(instance, OctogenSource())
    monkeypatch.setattr(listing_sensor, "_seconds", lambda: daemon.now)
    hub.share("northpeak")
    daemon.tick()
    for _ in range(2):
        hub.inject(HubFault("cell", {"status": "refresh_failed"}))
        assert reported(daemon.tick(minutes=1)) == {"northpeak": "refresh_failed"}
        assert reported(daemon.tick(minutes=1)) == {}
        hub.clear_faults()
        assert reported(daemon.tick(minutes=1)) == {}


@pytest.mark.parametrize("status", ["active", "source_stale", "pending"])
def test_octogen_s_status_replaces_nothing_that_analytics_hub_says(
    hub: Hub, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    daemon = Daemon(instance, OctogenSource())
    monkeypatch.setattr(listing_sensor, "_seconds", lambda: daemon.now)
    hub.share("northpeak")
    hub.share("strada")
    daemon.tick()
    hub.revoke_access("northpeak")
    hub.make_stale("strada")
    hub.inject(HubFault("cell", {"status": status}))
    assert reported(daemon.tick(minutes=20)) == {"northpeak": "revoked", "strada": "stale"}
    for _ in range(20):
        assert reported(daemon.tick(minutes=4)) == {}


def test_what_octogen_does_not_know_of_yet_is_not_called_revoked(
    hub: Hub, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(instance, OctogenSource())
    daemon.asset = build_linked_datasets_asset(control_plane=False, grant_waits=())
    monkeypatch.setattr(listing_sensor, "_seconds", lambda: daemon.now)
    with daemon.resources["octogen_control_plane"].control_plane() as octogen:
        octogen.register(PROJECT, PRINCIPAL)
    hub.share("northpeak")
    assert daemon.asked() == ["northpeak"]
    for _ in range(20):
        result = daemon.tick(minutes=20)
        assert (result.run_requests, reported(result)) == ([], {})


def test_another_publisher_s_subscription_hides_no_lapse(
    hub: Hub, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = hub.share("northpeak")
    theirs = hub.share("strada", project="somebody-else", listing_id="northpeak")
    daemon = Daemon(instance, StaticSource([mine]))
    monkeypatch.setattr(listing_sensor, "_seconds", lambda: daemon.now)
    daemon.tick()
    daemon.instance.add_dynamic_partitions("octogen_listings", [listing_partition_key(theirs)])
    daemon.asset = build_linked_datasets_asset(dataset_id=lambda _: "theirs", grant_waits=())
    assert daemon.run(listing_partition_key(theirs)).success
    hub.revoke_access("northpeak")
    assert reported(daemon.tick(minutes=20)) == {"northpeak": "revoked"}


def test_a_check_that_takes_too_long_does_not_stop_the_tick(
    hub: Hub,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    resources = [hub.share("northpeak"), hub.share("elsewhere", location="eu")]
    first = Daemon(instance, StaticSource(resources))
    assert sorted(first.asked()) == ["elsewhere", "northpeak"]
    daemon = Daemon(instance, StaticSource([*resources, hub.share("strada")]))
    # Each of two calls is in time, both together are not.
    hub.inject(HubFault("latency", 1.4, method="ListSubscriptions", times=2))
    monkeypatch.setattr(listing_sensor, "TICK_TIMEOUT", 2.0)
    assert daemon.asked() == ["strada"]
    assert (
        "Subscriptions could not be checked, a later tick does. They were not read within the 2 s"
        in capfd.readouterr().err
    )


def test_a_check_that_fails_does_not_stop_the_tick(hub: Hub, instance: dg.DagsterInstance) -> None:
    daemon = Daemon(instance, ExchangeSource(hub.exchange))
    hub.share("northpeak")
    daemon.tick()
    hub.share("strada")
    hub.inject(HubFault("status", "PERMISSION_DENIED", method="ListSubscriptions", times=1))
    context = dg.build_sensor_context(instance=instance, cursor=None, resources=daemon.resources)
    result: Any = daemon.sensor._raw_fn(context)
    assert [request.partition_key.rpartition(":")[2] for request in result.run_requests] == [
        "strada"
    ]
