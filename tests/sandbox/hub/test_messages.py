"""Messages of the Analytics Hub API, made of the values of the store."""

from dataclasses import replace
from typing import Literal

import pytest
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.sandbox.hub.messages import (
    exchange_message,
    listing_message,
    subscription_message,
)
from octogen_dagster.sandbox.hub.names import ExchangeName, ListingName, project_number
from octogen_dagster.sandbox.hub.settings import HubSettings
from octogen_dagster.sandbox.hub.state import AT_ONCE, Listing, Subscription

BY_ID = ListingName("octogen-sandbox", "us", "catalogs", "kumo")
BY_NUMBER = replace(BY_ID, project=project_number("octogen-sandbox"))
LISTING = Listing(serial=3, catalog="kumo", name=BY_ID, grant=AT_ONCE, shared_at=0.0)
SUBSCRIPTION = Subscription(
    name="projects/reader-project/locations/us/subscriptions/linked_000004",
    catalog="kumo",
    listing=BY_ID,
    project="reader-project",
    dataset="linked",
    location="us",
    friendly_name="Linked",
    state="STATE_ACTIVE",
    serial=4,
    created_at=1_000_000_000.25,
    modified_at=1_000_000_001.0,
)


def test_an_exchange_says_how_many_listings_it_has() -> None:
    message = exchange_message(ExchangeName("p", "us", "catalogs"), 5)
    assert message.name == "projects/p/locations/us/dataExchanges/catalogs"
    assert message.listing_count == 5


@pytest.mark.parametrize(
    ("setting", "requested", "name"),
    [
        ("id", BY_NUMBER, BY_ID),
        ("number", BY_ID, BY_NUMBER),
        ("as_asked", BY_ID, BY_ID),
        ("as_asked", BY_NUMBER, BY_NUMBER),
    ],
)
def test_a_listing_names_its_project_as_the_settings_say(
    setting: Literal["id", "number", "as_asked"], requested: ListingName, name: ListingName
) -> None:
    settings = HubSettings(get_listing_project=setting)
    message = listing_message(LISTING, settings, str(requested))
    assert message.name == str(name)
    assert message.display_name == "kumo"
    assert message.state == ah.Listing.State.ACTIVE


def test_a_subscription_says_its_dataset_state_and_times() -> None:
    message = subscription_message(SUBSCRIPTION, HubSettings())
    assert message.name == SUBSCRIPTION.name
    assert message.state == ah.Subscription.State.STATE_ACTIVE
    assert message.creation_time.timestamp() == 1_000_000_000.25
    assert message.last_modify_time.timestamp() == 1_000_000_001.0
    linked = message.linked_dataset_map[str(BY_ID)].linked_dataset
    assert linked == "projects/reader-project/datasets/linked"
    assert message.destination_dataset.dataset_reference.dataset_id == "linked"
    assert message.destination_dataset.friendly_name == "Linked"


@pytest.mark.parametrize(
    ("setting", "in_map", "in_destination"),
    [
        ("both", True, True),
        ("linked_dataset_map", True, False),
        ("destination_dataset", False, True),
        ("neither", False, False),
    ],
)
def test_the_settings_say_which_field_names_the_linked_dataset(
    setting: Literal["linked_dataset_map", "destination_dataset", "both", "neither"],
    in_map: bool,
    in_destination: bool,
) -> None:
    message = subscription_message(SUBSCRIPTION, HubSettings(linked_dataset_in=setting))
    assert bool(message.linked_dataset_map) is in_map
    assert ("destination_dataset" in message) is in_destination


def test_a_subscription_that_is_not_active_names_no_linked_resource() -> None:
    stale = replace(SUBSCRIPTION, state="STATE_STALE")
    message = subscription_message(stale, HubSettings())
    assert message.state == ah.Subscription.State.STATE_STALE
    assert not message.linked_dataset_map
    assert "destination_dataset" in message


def test_a_subscription_may_name_its_listing_by_the_project_s_number() -> None:
    message = subscription_message(SUBSCRIPTION, HubSettings(listing_project="number"))
    assert message.listing == str(BY_NUMBER)
    assert list(message.linked_dataset_map) == [str(BY_NUMBER)]
