"""Names of one listing by the project's id and number, against the sandbox's Analytics Hub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from octogen_dagster.errors import OctogenBigQueryError
from octogen_dagster.sandbox.listings import project_number
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from octogen_dagster.sharing.listing_identity import ListingIdentity
from octogen_dagster.sharing.resource_names import ListingName
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import HubFault


@pytest.fixture
def identity(hub: Hub) -> Iterator[ListingIdentity]:
    with AnalyticsHub(endpoint=hub.endpoint) as analytics_hub:
        yield ListingIdentity(analytics_hub)


def by_number(resource: str) -> ListingName:
    """The name of a listing with its project's number in place of its id."""
    name = ListingName.parse(resource)
    return ListingName(project_number(name.project), name.location, name.exchange, name.listing)


def lookups(hub: Hub) -> int:
    return [call.method for call in hub.calls].count("GetListing")


def test_names_that_tell_alone_are_not_looked_up(hub: Hub, identity: ListingIdentity) -> None:
    acme, zen = ListingName.parse(hub.share("acme")), ListingName.parse(hub.share("zen"))
    assert identity.matches(acme, acme) is True
    assert identity.matches(acme, zen) is False
    assert lookups(hub) == 0


@pytest.mark.parametrize("answers", ["id", "number", "as_asked"])
def test_an_id_and_a_number_are_looked_up_once(
    hub: Hub, identity: ListingIdentity, answers: Any
) -> None:
    hub.settings.get_listing_project = answers
    acme, zen = hub.share("acme"), hub.share("zen")
    assert identity.matches(ListingName.parse(acme), by_number(acme)) is True
    after_one = lookups(hub)
    assert after_one in (1, 2)
    assert identity.matches(ListingName.parse(zen), by_number(zen)) is True
    assert lookups(hub) == after_one


@pytest.mark.parametrize("answers", ["id", "number", "as_asked"])
def test_listings_of_two_projects_do_not_match(
    hub: Hub, identity: ListingIdentity, answers: Any
) -> None:
    hub.settings.get_listing_project = answers
    ours = hub.share("ours", listing_id="acme")
    theirs = hub.share("theirs", project="other-publisher", listing_id="acme")
    assert identity.matches(ListingName.parse(ours), by_number(theirs)) is False


def test_a_listing_that_may_not_be_seen_is_unknown_and_asked_for_again(
    hub: Hub, identity: ListingIdentity
) -> None:
    acme = hub.share("acme")
    hub.inject(HubFault("status", "PERMISSION_DENIED", method="GetListing", times=2))
    assert identity.matches(ListingName.parse(acme), by_number(acme)) is None
    assert identity.matches(ListingName.parse(acme), by_number(acme)) is True


def test_an_analytics_hub_that_fails_is_an_error(hub: Hub, identity: ListingIdentity) -> None:
    acme = hub.share("acme")
    hub.inject(HubFault("status", "INVALID_ARGUMENT", method="GetListing"))
    with pytest.raises(OctogenBigQueryError, match="Analytics Hub refused"):
        identity.matches(ListingName.parse(acme), by_number(acme))
