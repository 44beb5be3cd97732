"""The methods of Analytics Hub, as Google's client sees them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.sandbox.hub.names import project_number
from octogen_dagster.sandbox.hub.server import Hub
from octogen_dagster.sandbox.hub.state import GrantAfter
from tests.sandbox.hub.calls import (
    LOCATION,
    PROJECT,
    SECONDS,
    connect,
    listing_names,
    outcomes,
    subscribe,
    subscriptions,
)

State = ah.Subscription.State


class TestDiscovery:
    def test_exchanges_are_there_from_the_start(
        self, hub: Hub, google: ah.AnalyticsHubServiceClient
    ) -> None:
        assert listing_names(google, hub.exchange) == []
        hub.share("kumo")
        hub.share("strada", exchange="more")
        hub.share("voltaic", location="eu")
        hub.share("grand-arcade", project="somebody-else")
        parent = "projects/octogen-sandbox/locations/us"
        exchanges = list(google.list_data_exchanges(parent=parent, timeout=SECONDS))
        assert [exchange.name for exchange in exchanges] == [
            hub.exchange,
            f"{parent}/dataExchanges/more",
        ]
        assert exchanges[0].listing_count == 1
        assert google.get_data_exchange(name=hub.exchange, timeout=SECONDS) == exchanges[0]
        with pytest.raises(exceptions.NotFound, match="Data exchange not found"):
            listing_names(google, f"{parent}/dataExchanges/other")

    def test_a_listing_can_be_found(self, hub: Hub, google: ah.AnalyticsHubServiceClient) -> None:
        resource = hub.share("north peak")
        assert (
            resource == hub.listing_resource("north peak") == f"{hub.exchange}/listings/north_peak"
        )
        (listing,) = google.list_listings(parent=hub.exchange, timeout=SECONDS)
        assert listing == google.get_listing(name=resource, timeout=SECONDS)
        assert listing.name == resource
        assert listing.display_name == "north peak"
        assert listing.state == ah.Listing.State.ACTIVE
        assert listing.bigquery_dataset.dataset
        hub.remove_listing("north peak")
        assert listing_names(google, hub.exchange) == []
        with pytest.raises(exceptions.NotFound, match=f"Listing not found: {resource}"):
            google.get_listing(name=resource, timeout=SECONDS)

    def test_a_project_can_be_given_by_number(
        self, hub: Hub, google: ah.AnalyticsHubServiceClient
    ) -> None:
        by_id = hub.share("kumo")
        by_number = by_id.replace("octogen-sandbox", project_number("octogen-sandbox"))
        shown_names: dict[Any, tuple[str, str]] = {
            "id": (by_id, by_id),
            "number": (by_number, by_number),
            "as_asked": (by_id, by_number),
        }
        for setting, expected in shown_names.items():
            hub.settings.get_listing_project = setting
            for requested, name in zip((by_id, by_number), expected, strict=True):
                assert google.get_listing(name=requested, timeout=SECONDS).name == name
                assert listing_names(google, requested.partition("/listings/")[0]) == [name]
        subscribe(google, by_number)
        assert hub.subscriptions[0].catalog == "kumo"

    def test_ten_thousand_listings_come_in_pages(
        self, hub: Hub, google: ah.AnalyticsHubServiceClient
    ) -> None:
        shared = [hub.share(f"catalog-{number}") for number in range(10_000)]
        assert listing_names(google, hub.exchange, page_size=5000) == shared
        assert len(outcomes(hub, "ListListings")) == 10
        pages = google.list_listings(parent=hub.exchange, timeout=SECONDS).pages
        assert [listing.name for listing in next(pages).listings] == shared[:100]

    def test_a_page_continues_after_the_last_one(
        self, hub: Hub, google: ah.AnalyticsHubServiceClient
    ) -> None:
        a, b, c, d = (hub.share(key) for key in "abcd")
        request = ah.ListListingsRequest(parent=hub.exchange, page_size=2)
        pages = google.list_listings(request=request, timeout=SECONDS).pages
        seen = [listing.name for listing in next(pages).listings]
        hub.remove_listing("a")
        hub.remove_listing("c")
        new = hub.share("e")
        seen += [listing.name for page in pages for listing in page.listings]
        assert seen == [a, b, d, new]
        assert c not in seen

    def test_invalid_pages_are_refused(
        self, hub: Hub, google: ah.AnalyticsHubServiceClient
    ) -> None:
        for key in "abc":
            hub.share(key)
            hub.share(f"{key}2", exchange="more")
        with pytest.raises(exceptions.InvalidArgument, match="page_size"):
            listing_names(google, hub.exchange, page_size=-1)
        request = ah.ListListingsRequest(parent=hub.exchange, page_size=1)
        token = next(google.list_listings(request=request, timeout=SECONDS).pages).next_page_token
        more = hub.exchange.replace("catalogs", "more")
        for parent, bad in ((more, token), (hub.exchange, "x"), (hub.exchange, "bnVsbA==")):
            request = ah.ListListingsRequest(parent=parent, page_token=bad)
            with pytest.raises(exceptions.InvalidArgument, match="page_token is not valid"):
                google.list_listings(request=request, timeout=SECONDS)


class TestSubscribe:
    def test_a_subscription_has_all_fields(
        self, hub: Hub, google: ah.AnalyticsHubServiceClient
    ) -> None:
        resource = hub.share("kumo")
        before = datetime.now(timezone.utc)
        subscription = subscribe(google, resource, "octogen_kumo", location="US")
        assert subscription.name.startswith(f"{LOCATION}/subscriptions/")
        assert subscription.listing == resource
        assert subscription.state == State.STATE_ACTIVE
        assert subscription.resource_type == ah.SharedResourceType.BIGQUERY_DATASET
        assert subscription.organization_display_name == PROJECT
        assert abs(subscription.creation_time - before) < timedelta(minutes=1)
        linked = subscription.linked_dataset_map
        assert {key: entry.linked_dataset for key, entry in linked.items()} == {
            resource: f"projects/{PROJECT}/datasets/octogen_kumo"
        }
        destination = subscription.destination_dataset
        assert destination.dataset_reference.dataset_id == "octogen_kumo"
        assert destination.dataset_reference.project_id == PROJECT
        assert destination.friendly_name == "Octogen octogen_kumo"
        assert destination.location == "us"
        assert subscriptions(google) == [subscription]
        assert google.get_subscription(name=subscription.name, timeout=SECONDS) == subscription
        assert hub.datasets(PROJECT) == {"octogen_kumo": subscription.name}

    def test_access_arrives_after_a_while(
        self, hub: Hub, google: ah.AnalyticsHubServiceClient
    ) -> None:
        resource = hub.share("kumo", grant=GrantAfter(denials=2))
        for _ in range(2):
            with pytest.raises(exceptions.PermissionDenied, match="denied on resource"):
                subscribe(google, resource)
        subscribe(google, resource)
        assert outcomes(hub, "SubscribeListing") == ["PERMISSION_DENIED"] * 2 + ["OK"]

    def test_refusals(self, hub: Hub, google: ah.AnalyticsHubServiceClient) -> None:
        resource = hub.share("kumo")
        hub.add_dataset(PROJECT, "mine")
        refusals: list[tuple[type[Exception], dict[str, Any]]] = [
            (exceptions.InvalidArgument, {"listing": "kumo"}),
            (exceptions.InvalidArgument, {"listing": resource, "dataset": "a-b"}),
            (exceptions.InvalidArgument, {"listing": resource, "dataset": ""}),
            (exceptions.InvalidArgument, {"listing": resource, "project": "P"}),
            (exceptions.InvalidArgument, {"listing": resource, "location": "eu"}),
            (exceptions.NotFound, {"listing": f"{resource}2"}),
            (exceptions.AlreadyExists, {"listing": resource, "dataset": "mine"}),
        ]
        for error, arguments in refusals:
            with pytest.raises(error):
                subscribe(google, **arguments)
        with pytest.raises(exceptions.InvalidArgument, match="Only a destination dataset"):
            google.subscribe_listing(name=resource, timeout=SECONDS)
        assert subscriptions(google) == []

    def test_many_at_once_make_one_subscription(self, hub: Hub) -> None:
        resource = hub.share("kumo")
        together = threading.Barrier(8)

        def try_it(_: int) -> str:
            google = connect(hub)
            together.wait(timeout=SECONDS)
            try:
                return subscribe(google, resource).name
            except exceptions.AlreadyExists:
                return ""

        with ThreadPoolExecutor(8) as pool:
            names = sorted(pool.map(try_it, range(8)))
        assert names == [""] * 7 + [hub.subscriptions[0].name]

    def test_calls_are_logged_with_their_arguments(
        self, hub: Hub, google: ah.AnalyticsHubServiceClient
    ) -> None:
        resource = hub.share("kumo")
        subscribe(google, resource, "linked")
        (call,) = hub.calls
        assert (call.surface, call.method, call.outcome) == ("grpc", "SubscribeListing", "OK")
        assert call.arguments == {
            "name": resource,
            "destination_dataset": {
                "dataset_reference": {"project_id": PROJECT, "dataset_id": "linked"},
                "location": "us",
                "friendly_name": "Octogen linked",
            },
        }


class TestSubscriptions:
    def test_they_are_listed_by_project_and_location(
        self, hub: Hub, google: ah.AnalyticsHubServiceClient
    ) -> None:
        subscribe(google, hub.share("kumo"))
        subscribe(google, hub.listing_resource("kumo"), project="another-project")
        subscribe(google, hub.share("voltaic", location="eu"), "other", location="eu")
        assert [subscription.name for subscription in subscriptions(google)] == [
            hub.subscriptions[0].name
        ]
        with pytest.raises(exceptions.InvalidArgument, match="Invalid location"):
            list(google.list_subscriptions(parent=f"projects/{PROJECT}", timeout=SECONDS))

    def test_they_are_filtered(self, hub: Hub, google: ah.AnalyticsHubServiceClient) -> None:
        kumo, strada = hub.share("kumo"), hub.share("strada", exchange="more")
        first, second = subscribe(google, kumo, "first"), subscribe(google, strada, "second")
        by_number = kumo.replace("octogen-sandbox", project_number("octogen-sandbox"))
        more = strada.partition("/listings/")[0]
        assert subscriptions(google, f'listing="{kumo}"') == [first]
        assert subscriptions(google, f'listing = "{by_number}"') == [first]
        assert subscriptions(google, f'"{strada}"') == [second]
        assert subscriptions(google, f'"{more}"') == [second]
        assert subscriptions(google, f'data_exchange="{hub.exchange}"') == [first]
        assert subscriptions(google, "") == [first, second]
        with pytest.raises(exceptions.InvalidArgument, match="Invalid filter"):
            subscriptions(google, "state=ACTIVE")

    def test_they_come_in_pages(self, hub: Hub, google: ah.AnalyticsHubServiceClient) -> None:
        resource = hub.share("kumo")
        made = [subscribe(google, resource, f"d{number}") for number in range(5)]
        request = ah.ListSubscriptionsRequest(parent=LOCATION, page_size=2)
        assert list(google.list_subscriptions(request=request, timeout=SECONDS)) == made
        assert len(outcomes(hub, "ListSubscriptions")) == 3

    @pytest.mark.parametrize(
        ("setting", "in_map", "in_destination"),
        [
            ("both", True, True),
            ("linked_dataset_map", True, False),
            ("destination_dataset", False, True),
            ("neither", False, False),
        ],
    )
    def test_the_settings_choose_the_field_with_the_linked_dataset(
        self,
        hub: Hub,
        google: ah.AnalyticsHubServiceClient,
        setting: Any,
        in_map: bool,
        in_destination: bool,
    ) -> None:
        hub.settings.linked_dataset_in = setting
        subscription = subscribe(google, hub.share("kumo"))
        assert bool(subscription.linked_dataset_map) == in_map
        assert bool(subscription.linked_resources) == in_map
        assert ("destination_dataset" in subscription) == in_destination

    def test_the_listing_s_project_can_be_a_number(
        self, hub: Hub, google: ah.AnalyticsHubServiceClient
    ) -> None:
        hub.settings.listing_project = "number"
        resource = hub.share("kumo")
        number = project_number("octogen-sandbox")
        subscription = subscribe(google, resource)
        assert subscription.listing == resource.replace("octogen-sandbox", number)
        assert list(subscription.linked_dataset_map) == [subscription.listing]
        hub.settings.listing_project = "id"
        assert subscriptions(google)[0].listing == resource

    def test_only_an_active_subscription_names_its_linked_resources(
        self, hub: Hub, google: ah.AnalyticsHubServiceClient
    ) -> None:
        name = subscribe(google, hub.share("kumo")).name
        hub.make_stale("kumo")
        stale = google.get_subscription(name=name, timeout=SECONDS)
        assert stale.state == State.STATE_STALE
        assert not stale.linked_dataset_map
        assert stale.destination_dataset.dataset_reference.dataset_id == "linked"
        hub.revoke_access("kumo")
        assert subscriptions(google)[0].state == State.STATE_INACTIVE

    def test_refresh_is_an_operation(self, hub: Hub, google: ah.AnalyticsHubServiceClient) -> None:
        subscription = subscribe(google, hub.share("kumo"))
        hub.make_stale("kumo")
        operation: Any = google.refresh_subscription(name=subscription.name, timeout=SECONDS)
        assert not operation.operation.done
        refreshed = operation.result(timeout=SECONDS).subscription
        assert operation.metadata.target == subscription.name
        assert refreshed.state == State.STATE_ACTIVE
        assert refreshed.last_modify_time > subscription.last_modify_time
        assert refreshed.linked_dataset_map == subscription.linked_dataset_map
        assert outcomes(hub, "GetOperation") == ["OK"]

    def test_revoke_makes_inactive(self, hub: Hub, google: ah.AnalyticsHubServiceClient) -> None:
        name = subscribe(google, hub.share("kumo")).name
        google.revoke_subscription(name=name, timeout=SECONDS)
        assert hub.subscriptions[0].state == "STATE_INACTIVE"
        with pytest.raises(exceptions.FailedPrecondition, match="is not active"):
            google.refresh_subscription(name=name, timeout=SECONDS)
        with pytest.raises(exceptions.AlreadyExists):
            subscribe(google, hub.listing_resource("kumo"))

    def test_delete_is_an_operation_that_frees_the_dataset(
        self, hub: Hub, google: ah.AnalyticsHubServiceClient
    ) -> None:
        name = subscribe(google, hub.share("kumo")).name
        operation: Any = google.delete_subscription(name=name, timeout=SECONDS)
        operation.result(timeout=SECONDS)
        assert hub.subscriptions == []
        for gone in (google.get_subscription, google.delete_subscription):
            with pytest.raises(exceptions.NotFound, match=f"Subscription not found: {name}"):
                gone(name=name, timeout=SECONDS)
        assert subscribe(google, hub.listing_resource("kumo")).name != name

    def test_an_unknown_operation_is_not_found(self, google: ah.AnalyticsHubServiceClient) -> None:
        operations = google.transport.operations_client
        with pytest.raises(exceptions.NotFound, match="Operation not found: x"):
            operations.get_operation("x", timeout=SECONDS, retry=None)
