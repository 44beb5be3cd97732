from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
    OctogenBigQueryInputError,
)
from octogen_dagster.sandbox.listings import project_number
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from octogen_dagster.sharing.subscribe import (
    BigQuerySubscriptionResult,
    Subscriptions,
    subscribe_to_listing,
)
from octogen_dagster.sharing.subscription_plan import plan_subscription
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import HubFault
from tests.sharing.hubs import answering
from tests.sharing.subscriptions import PLACES, PROJECT, to

pytestmark = pytest.mark.usefixtures("local_hub")


def known(hub: Hub) -> dict[str, str]:
    """The datasets of all subscriptions, as somebody knows them who noted what was reported."""
    return {each.name: each.dataset for each in hub.subscriptions}


def methods(hub: Hub) -> list[str]:
    return [call.method for call in hub.calls]


def test_a_listing_becomes_a_linked_dataset_once(hub: Hub) -> None:
    listing = hub.share("north-peak")
    assert to(listing) == BigQuerySubscriptionResult(
        listing_resource=listing,
        linked_project=PROJECT,
        linked_dataset="octogen_north_peak",
        state="STATE_ACTIVE",
        already_subscribed=False,
        subscription_name=hub.subscriptions[0].name,
        sample_query=(
            "SELECT * FROM `reader-project.octogen_north_peak.products_current_v1` LIMIT 10;"
        ),
    )
    assert hub.subscriptions[0].friendly_name == "Octogen octogen_north_peak"
    assert hub.subscriptions[0].location == "us"
    again = to(listing)
    assert again.already_subscribed
    assert again.subscription_name == hub.subscriptions[0].name
    assert len(hub.subscriptions) == 1


def test_dataset_location_and_name_can_be_chosen(hub: Hub) -> None:
    listing = hub.share("acme")
    result = to(listing, destination_dataset_id="mine", location="US", friendly_name="Acme shop")
    assert result.linked_dataset == "mine"
    (subscription,) = hub.subscriptions
    assert (subscription.dataset, subscription.friendly_name) == ("mine", "Acme shop")
    assert hub.calls[-1].arguments["destination_dataset"]["location"] == "US"


def test_an_existing_subscription_is_returned_whatever_its_dataset_is_called(hub: Hub) -> None:
    listing = hub.share("acme")
    to(listing, destination_dataset_id="mine")
    result = to(listing, destination_dataset_id="other")
    assert (result.already_subscribed, result.linked_dataset) == (True, "mine")
    assert result.sample_query.startswith("SELECT * FROM `reader-project.mine.")


@pytest.mark.parametrize("place", PLACES)
def test_a_stale_subscription_is_returned(hub: Hub, place: Any) -> None:
    hub.settings.linked_dataset_in = place
    listing = hub.share("acme")
    to(listing, destination_dataset_id="mine")
    hub.make_stale("acme")
    with AnalyticsHub() as analytics_hub:
        result = Subscriptions(analytics_hub, known(hub)).subscribe(
            plan_subscription(listing, PROJECT)
        )
    assert (result.already_subscribed, result.state) == (True, "STATE_STALE")
    assert (result.linked_project, result.linked_dataset) == (PROJECT, "mine")
    assert result.sample_query.startswith("SELECT * FROM `reader-project.mine.")


def test_of_several_subscriptions_the_one_with_the_planned_dataset_is_returned(hub: Hub) -> None:
    listing = hub.share("acme")
    with AnalyticsHub() as analytics_hub:
        for dataset in ("one", "two"):
            reference = ah.DestinationDatasetReference(project_id=PROJECT, dataset_id=dataset)
            destination = ah.DestinationDataset(dataset_reference=reference, location="us")
            request = ah.SubscribeListingRequest(name=listing, destination_dataset=destination)
            assert analytics_hub.subscribe(request)
    assert to(listing, destination_dataset_id="two").linked_dataset == "two"
    assert to(listing, destination_dataset_id="three").linked_dataset == "one"


def test_a_missing_grant_is_reported_as_pending(hub: Hub) -> None:
    listing = hub.share("acme", granted=False)
    with pytest.raises(OctogenBigQueryAccessPendingError) as caught:
        to(listing)
    message = str(caught.value)
    assert message.startswith(f"Listing {listing} as dataset {PROJECT}.octogen_acme in location us")
    assert "grant has not arrived yet (PERMISSION_DENIED: Permission" in message
    assert "try again in a few minutes" in message
    assert methods(hub).count("SubscribeListing") == 1
    hub.grant_access("acme")
    assert to(listing).already_subscribed is False


def test_any_other_denial_is_not_reported_as_pending(hub: Hub) -> None:
    listing = hub.share("acme")
    hub.inject(HubFault("status", "PERMISSION_DENIED", method="ListSubscriptions"))
    with pytest.raises(OctogenBigQueryError, match=r"subscriptions\.list is missing") as caught:
        to(listing)
    assert not isinstance(caught.value, OctogenBigQueryAccessPendingError)
    assert f"The subscriptions of projects/{PROJECT}/locations/us: " in str(caught.value)


@pytest.mark.parametrize("answers", ["id", "number", "as_asked"])
@pytest.mark.parametrize("subscribed", ["id", "number"])
@pytest.mark.parametrize("asked", ["id", "number"])
def test_a_projects_number_and_id_are_the_same_project(
    hub: Hub, asked: str, subscribed: Any, answers: Any
) -> None:
    listing = hub.share("acme")
    to(listing)
    hub.settings.listing_project = subscribed
    hub.settings.get_listing_project = answers
    if asked == "number":
        listing = listing.replace("octogen-sandbox", project_number("octogen-sandbox"))
    before = len(hub.calls)
    result = to(listing)
    assert result.already_subscribed
    assert result.listing_resource == listing
    assert len(hub.subscriptions) == 1
    lookups = methods(hub)[before:].count("GetListing")
    assert lookups <= (0 if asked == subscribed else 2)


@pytest.mark.parametrize("answers", ["id", "number", "as_asked"])
@pytest.mark.parametrize("number", [False, True])
def test_listings_with_the_same_ids_in_two_projects_are_distinct(
    hub: Hub, answers: Any, number: bool
) -> None:
    theirs = hub.share("theirs", project="other-publisher", listing_id="acme")
    ours = hub.share("ours", listing_id="acme")
    to(theirs, destination_dataset_id="theirs")
    hub.settings.listing_project = "number" if number else "id"
    hub.settings.get_listing_project = answers
    result = to(ours)
    assert not result.already_subscribed
    assert [each.catalog for each in hub.subscriptions] == ["theirs", "ours"]


@pytest.mark.parametrize("refusal", ["PERMISSION_DENIED", "NOT_FOUND"])
def test_a_subscription_that_may_be_to_the_listing_is_not_repeated(hub: Hub, refusal: str) -> None:
    listing = hub.share("acme")
    there = to(listing)
    hub.settings.listing_project = "number"
    hub.inject(HubFault("status", refusal, method="GetListing"))
    for dataset in (None, "another"):
        with pytest.raises(OctogenBigQueryError) as caught:
            to(listing, destination_dataset_id=dataset)
        said = str(caught.value)
        assert f"subscription {there.subscription_name} to projects/" in said
        assert "is in force, and may be to the same listing" in said
        assert "Nothing was changed." in said
    assert len(hub.subscriptions) == 1
    hub.revoke_access("acme")
    with pytest.raises(OctogenBigQueryAccessPendingError):
        to(listing)


def test_a_subscription_that_may_be_to_the_listing_does_not_hide_a_pending_grant(
    hub: Hub,
) -> None:
    listing = hub.share("acme")
    to(listing)  # as another principal
    hub.settings.listing_project = "number"
    hub.inject(HubFault("denied"))
    hub.inject(HubFault("status", "PERMISSION_DENIED", method="GetListing"))
    with pytest.raises(
        OctogenBigQueryAccessPendingError, match="has not arrived yet, and nothing was changed"
    ):
        to(listing)


def test_the_query_has_the_plans_project_if_analytics_hub_sends_a_number(hub: Hub) -> None:
    listing = hub.share("acme")
    to(listing)
    with AnalyticsHub() as analytics_hub:
        (there,) = analytics_hub.subscriptions(PROJECT, "us")
    there.destination_dataset.dataset_reference.project_id = "123456789012"
    there.linked_dataset_map[listing].linked_dataset = "projects/123456789012/datasets/mine"
    page = ah.ListSubscriptionsResponse(subscriptions=[there])
    with (
        answering(ListSubscriptions=lambda _: page) as endpoint,
        AnalyticsHub(endpoint=endpoint) as analytics_hub,
    ):
        result = Subscriptions(analytics_hub).subscribe(plan_subscription(listing, PROJECT))
    assert result.linked_project == PROJECT
    assert result.sample_query.startswith(f"SELECT * FROM `{PROJECT}.")


@pytest.mark.parametrize("place", ["linked_dataset_map", "destination_dataset", "both"])
def test_the_linked_dataset_is_read_from_either_place(hub: Hub, place: Any) -> None:
    hub.settings.linked_dataset_in = place
    listing = hub.share("acme")
    for _ in range(2):
        result = to(listing, destination_dataset_id="mine")
        assert (result.linked_project, result.linked_dataset) == (PROJECT, "mine")


@pytest.mark.parametrize("stale", [False, True])
def test_a_listed_subscription_without_a_dataset_is_an_error(hub: Hub, stale: bool) -> None:
    hub.settings.linked_dataset_in = "neither"
    listing = hub.share("acme")
    assert to(listing).linked_dataset == "octogen_acme"
    if stale:
        hub.make_stale("acme")
    with pytest.raises(OctogenBigQueryError, match="does not say which dataset is linked") as error:
        to(listing)
    assert hub.subscriptions[0].name in str(error.value)
    assert len(hub.subscriptions) == 1


def test_a_dataset_of_somebody_else_is_an_error(hub: Hub) -> None:
    listing, other = hub.share("acme"), hub.share("other")
    hub.add_dataset(PROJECT, "octogen_acme")
    with pytest.raises(
        OctogenBigQueryError,
        match=f"project {PROJECT} already has a dataset octogen_acme, and no subscription to this "
        "listing has it",
    ):
        to(listing)
    to(other)
    with pytest.raises(
        OctogenBigQueryError, match=f"octogen_other, which is linked to {other}: choose another"
    ):
        to(listing, destination_dataset_id="octogen_other")


@pytest.mark.parametrize("first", [0, 1])
def test_two_listings_with_the_same_id_get_two_datasets_by_default(hub: Hub, first: int) -> None:
    projects = ["octogen-sandbox", "other-publisher"]
    listings = [hub.share(project, project=project, listing_id="acme") for project in projects]
    listings = [listings[first], listings[1 - first]]
    datasets = [to(listing).linked_dataset for listing in listings]
    assert datasets[0] == "octogen_acme"
    assert re.fullmatch("octogen_acme_[0-9a-f]{8}", datasets[1])
    assert [to(listing).linked_dataset for listing in listings] == datasets


def test_a_lost_response_is_recovered_from(hub: Hub) -> None:
    listing = hub.share("acme")
    hub.inject(HubFault("lost_response", method="SubscribeListing", times=1))
    result = to(listing)
    assert (result.linked_dataset, result.state) == ("octogen_acme", "STATE_ACTIVE")
    assert [call.outcome for call in hub.calls if call.method == "SubscribeListing"] == [
        "UNAVAILABLE",
        "ALREADY_EXISTS",
    ]
    assert len(hub.subscriptions) == 1


def test_two_concurrent_calls_subscribe_once(hub: Hub) -> None:
    listing = hub.share("acme")
    hub.inject(HubFault("latency", 0.2, method="ListSubscriptions", times=2))
    with ThreadPoolExecutor() as executor:
        results = list(executor.map(to, [listing] * 2))
    assert sorted(result.already_subscribed for result in results) == [False, True]
    assert len({result.subscription_name for result in results}) == 1
    assert len(hub.subscriptions) == 1


def test_another_location_than_the_listings_is_an_error(hub: Hub) -> None:
    with pytest.raises(OctogenBigQueryError) as caught:
        to(hub.share("acme"), location="eu")
    message = str(caught.value)
    assert "in location eu: Analytics Hub refused (INVALID_ARGUMENT: The destination" in message
    assert "a linked dataset is where its listing is" in message


def test_a_listing_that_was_removed_is_an_error(hub: Hub) -> None:
    listing = hub.share("acme", granted=False)
    hub.remove_listing("acme")
    with pytest.raises(OctogenBigQueryError, match=r"NOT_FOUND.*may also have been withdrawn"):
        to(listing)


@pytest.mark.parametrize(
    "settings",
    [
        {"listing_resource": "acme"},
        {"destination_dataset_id": "my-data"},
        {"destination_project": ""},
    ],
)
def test_invalid_names_are_not_sent(hub: Hub, settings: dict[str, str]) -> None:
    valid: dict[str, Any] = {"listing_resource": hub.share("acme"), "destination_project": PROJECT}
    with pytest.raises(OctogenBigQueryInputError):
        subscribe_to_listing(**valid | settings)
    assert hub.calls == []


def test_many_subscriptions_of_others_cost_no_lookups(hub: Hub) -> None:
    hub.settings.listing_project = "number"
    with AnalyticsHub() as analytics_hub:
        for number in range(30):
            plan = plan_subscription(hub.share(f"catalog-{number}"), PROJECT)
            Subscriptions(analytics_hub).subscribe(plan)
    assert "GetListing" not in methods(hub)
    assert len(hub.subscriptions) == 30


def test_a_pass_reads_the_subscriptions_once(hub: Hub) -> None:
    listings = [hub.share(f"catalog-{number}") for number in range(5)]
    to(listings[4])
    before = len(hub.calls)
    with AnalyticsHub() as analytics_hub:
        subscriptions = Subscriptions(analytics_hub)
        results = [
            subscriptions.subscribe(plan_subscription(listing, PROJECT)) for listing in listings
        ]
    assert [result.already_subscribed for result in results] == [False] * 4 + [True]
    assert methods(hub)[before:] == ["ListSubscriptions"] + ["SubscribeListing"] * 4


def test_a_pass_asks_once_for_subscriptions_that_cannot_be_read(hub: Hub) -> None:
    listings = [hub.share(f"catalog-{number}") for number in range(3)]
    elsewhere = hub.share("elsewhere", location="eu")
    hub.inject(HubFault("status", "INVALID_ARGUMENT", method="ListSubscriptions", times=1))
    with AnalyticsHub() as analytics_hub:
        subscriptions = Subscriptions(analytics_hub)
        for listing in listings:
            with pytest.raises(OctogenBigQueryError, match="The subscriptions of projects/read"):
                subscriptions.subscribe(plan_subscription(listing, PROJECT))
        assert (
            subscriptions.subscribe(plan_subscription(elsewhere, PROJECT)).state == "STATE_ACTIVE"
        )
    assert methods(hub) == ["ListSubscriptions"] * 2 + ["SubscribeListing"]


def test_a_pass_reads_the_subscriptions_again_if_another_process_was_faster(hub: Hub) -> None:
    listing, other = hub.share("acme"), hub.share("other")
    with AnalyticsHub() as analytics_hub:
        subscriptions = Subscriptions(analytics_hub)
        subscriptions.subscribe(plan_subscription(other, PROJECT))
        to(listing)
        result = subscriptions.subscribe(plan_subscription(listing, PROJECT))
    assert (result.already_subscribed, result.state) == (True, "STATE_ACTIVE")
