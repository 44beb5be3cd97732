"""Subscriptions that are not in order, as the listing sensor finds and reports them."""

import dagster as dg
import pytest

from octogen_dagster.bigquery.linked_datasets import build_linked_datasets_asset
from octogen_dagster.bigquery.listing_sources import (
    ExchangeSource,
    OctogenSource,
    StaticSource,
)
from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.bigquery.subscription_health import by_analytics_hub, merge_octogen_status
from octogen_dagster.sharing.hub import AnalyticsHub, Listing
from octogen_dagster.sharing.names import ListingName
from tests.bigquery.daemon import PRINCIPAL, PROJECT, Daemon, reported
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import HubFault

pytestmark = pytest.mark.slow


def checked(daemon: Daemon, hub: Hub) -> dict[str, object]:
    """What a tick that checks the subscriptions reports."""
    before = [call.method for call in hub.calls].count("ListSubscriptions")
    found = reported(daemon.tick(minutes=20))
    assert [call.method for call in hub.calls].count("ListSubscriptions") == before + 1
    return found


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
    assert [daemon.requested(minutes=20) for _ in range(40)] == [[]] * 40


def test_a_subscription_that_the_user_deleted_is_reported_and_not_made_again(
    hub: Hub, instance: dg.DagsterInstance
) -> None:
    daemon = Daemon(instance, ExchangeSource(hub.exchange))
    hub.share("northpeak")
    daemon.tick()
    with AnalyticsHub() as google:
        google.delete(hub.subscriptions[0].name)
    assert reported(daemon.tick(minutes=20)) == {"northpeak": "missing"}
    assert [daemon.requested(minutes=60) for _ in range(10)] == [[]] * 10


def test_a_stale_subscription_is_reported_once(daemon: Daemon, hub: Hub) -> None:
    hub.share("northpeak")
    daemon.tick()
    hub.make_stale("northpeak")
    assert reported(daemon.tick(minutes=20)) == {"northpeak": "stale"}
    assert reported(daemon.tick(minutes=20)) == {}
    assert daemon.requested(minutes=600) == []


def test_a_state_that_is_newer_than_google_s_client_is_no_lapse(
    daemon: Daemon, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.share("northpeak")
    daemon.tick()
    hub.settings.states["STATE_ACTIVE"] = 7
    assert checked(daemon, hub) == {}
    hub.make_stale("northpeak")
    assert checked(daemon, hub) == {"northpeak": "stale"}


def test_a_project_that_subscriptions_name_by_number_is_no_lapse(daemon: Daemon, hub: Hub) -> None:
    hub.share("northpeak")
    daemon.tick()
    hub.settings.listing_project = "number"
    assert checked(daemon, hub) == {}


def test_what_octogen_says_is_reported_and_forgotten_when_it_says_otherwise(
    hub: Hub, instance: dg.DagsterInstance
) -> None:
    daemon = Daemon(instance, OctogenSource())
    hub.share("northpeak")
    daemon.tick()
    for _ in range(2):
        hub.inject(HubFault("cell", {"status": "refresh_failed"}))
        assert reported(daemon.tick(minutes=1)) == {"northpeak": "refresh_failed"}
        assert reported(daemon.tick(minutes=1)) == {}
        hub.clear_faults()
        assert reported(daemon.tick(minutes=1)) == {}


@pytest.mark.parametrize("status", ["active", "source_stale", "preparing", "melted"])
def test_octogen_s_status_replaces_nothing_that_analytics_hub_says(
    hub: Hub, instance: dg.DagsterInstance, status: str
) -> None:
    daemon = Daemon(instance, OctogenSource())
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
    hub: Hub, instance: dg.DagsterInstance
) -> None:
    daemon = Daemon(instance, OctogenSource())
    daemon.asset = build_linked_datasets_asset(control_plane=False, grant_waits=())
    with daemon.resources["octogen_control_plane"].control_plane() as octogen:
        octogen.register(PROJECT, PRINCIPAL)
    hub.share("northpeak")
    assert daemon.requested() == ["northpeak"]
    for _ in range(20):
        result = daemon.tick(minutes=20)
        assert not result.run_requests
        assert reported(result) == {}


def test_another_publisher_s_subscription_hides_no_lapse(
    hub: Hub, instance: dg.DagsterInstance
) -> None:
    mine = hub.share("northpeak")
    theirs = hub.share("strada", project="somebody-else", listing_id="northpeak")
    daemon = Daemon(instance, StaticSource([mine]))
    daemon.tick()
    daemon.instance.add_dynamic_partitions("octogen_listings", [listing_partition_key(theirs)])
    daemon.asset = build_linked_datasets_asset(dataset_id=lambda _: "theirs", grant_waits=())
    assert daemon.run(listing_partition_key(theirs)).success
    hub.revoke_access("northpeak")
    assert reported(daemon.tick(minutes=20)) == {"northpeak": "revoked"}


LISTING = "projects/octo/locations/us/dataExchanges/catalogs/listings/acme"


def listing(resource: str = "", status: str | None = None) -> Listing:
    return Listing(ListingName.parse(resource or LISTING), status)


def test_analytics_hub_s_lapses_are_those_of_the_given_listings_in_their_locations(
    hub: Hub, instance: dg.DagsterInstance
) -> None:
    resources = {
        "in order": hub.share("northpeak"),
        "stale": hub.share("strada"),
        "revoked": hub.share("elsewhere", location="eu"),
        "not given": hub.share("other"),
    }
    daemon = Daemon(instance, StaticSource(list(resources.values())))
    assert len(daemon.requested()) == len(hub.subscriptions) == 4
    hub.make_stale("strada")
    hub.revoke_access("elsewhere")
    hub.make_stale("other")
    resources["missing"] = hub.share("never")
    subscribed = {key: listing(name) for key, name in resources.items() if key != "not given"}
    with AnalyticsHub() as google:
        lapses = by_analytics_hub(google, PROJECT, subscribed)
        assert by_analytics_hub(google, PROJECT, {}) == {}
    assert lapses == {"stale": "stale", "revoked": "revoked", "missing": "missing"}


@pytest.mark.parametrize(
    ("lapse", "status", "merged"),
    [
        (None, None, None),
        (None, "active", None),
        (None, "awaiting_subscription", None),
        (None, "preparing", "revoked"),
        (None, "pending", "revoked"),
        (None, "removing", "revoked"),
        (None, "melted", None),
        (None, "", None),
        (None, "source_stale", "source_stale"),
        ("stale", "active", "stale"),
        ("missing", "pending", "missing"),
        ("revoked", "refresh_failed", "revoked"),
        ("refresh_failed", "active", None),
        ("refresh_failed", "source_stale", "source_stale"),
        ("refresh_failed", "pending", "revoked"),
        ("refresh_failed", "awaiting_subscription", "refresh_failed"),
    ],
)
def test_octogen_s_status_is_added_where_analytics_hub_reported_nothing(
    lapse: str | None, status: str | None, merged: str | None
) -> None:
    lapses = {"key": lapse} if lapse else {}
    expected = {"key": merged} if merged else {}
    assert merge_octogen_status(lapses, {"key": listing(status=status)}) == expected
    assert lapses == ({"key": lapse} if lapse else {})
