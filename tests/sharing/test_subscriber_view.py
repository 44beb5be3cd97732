"""The view of a subscriber: listings merged with cells, and the registration."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from octogen_dagster.control_plane.tools import SharedListing
from octogen_dagster.sharing.subscriber_view import (
    SubscriberListing,
    merged_listings,
    read_subscriber_view,
)
from tests.sharing.octogen import (
    ME,
    OTHERS,
    PRINCIPAL,
    PROJECT,
    Octogen,
    cell,
    cell_of,
    listing,
    shared,
)


def statuses(found: list[SubscriberListing]) -> dict[str | None, str | None]:
    return {each.listing_resource: each.status for each in found}


def test_a_cell_gives_its_listing_a_status_and_the_listing_fills_its_gaps() -> None:
    whole = listing("acme")
    bare = SharedListing("acme", whole.listing_resource, linked_dataset="suggested")
    (merged,) = merged_listings([whole], [cell_of("s-1", bare, "active", "a_reason")])
    assert merged == SubscriberListing(
        catalog_key="acme",
        listing_resource=whole.listing_resource,
        linked_dataset="suggested",
        location="us",
        sample_query=whole.sample_query,
        has_cell=True,
        status="active",
        reason_code="a_reason",
    )


def test_listings_without_a_cell_and_cells_without_a_listing_are_kept_in_order() -> None:
    found = merged_listings(
        [listing("zen"), listing("acme")], [cell("other", "pending"), cell("zen", None)]
    )
    assert [(each.catalog_key, each.has_cell, each.status) for each in found] == [
        ("acme", False, None),
        ("other", True, "pending"),
        ("zen", True, None),
    ]


@pytest.mark.parametrize("in_order", [True, False])
def test_a_cell_without_a_listing_belongs_to_one_that_no_other_cell_names(in_order: bool) -> None:
    in_us = listing("acme")
    in_eu = replace(in_us, listing_resource=str(in_us.listing_resource).replace("/us/", "/eu/"))
    listings = [in_us, in_eu] if in_order else [in_eu, in_us]
    nameless = cell_of("s-1", SharedListing("acme"), "pending", None)
    found = merged_listings(listings, [nameless, cell_of("s-1", in_us, "active", None)])
    assert statuses(found) == {in_us.listing_resource: "active", in_eu.listing_resource: "pending"}


def test_more_cells_than_listings_share_the_first_listing() -> None:
    nameless = cell_of("s-1", SharedListing("acme"), "pending", None)
    found = merged_listings([listing("acme")], [nameless, nameless])
    assert [each.listing_resource for each in found] == [listing("acme").listing_resource] * 2


def test_chosen_catalogs_are_selected_and_unknown_ones_have_no_listing() -> None:
    found = merged_listings(
        [listing("acme"), listing("zen")], [cell("other")], ["zen", "other", "typo"]
    )
    assert [each.catalog_key for each in found] == ["other", "typo", "zen"]
    assert found[1] == SubscriberListing("typo")


def test_only_the_cells_of_the_subscriber_count() -> None:
    octogen = shared("acme")
    octogen.cells.append(cell_of("s-8", listing("theirs"), "active", None))
    view = read_subscriber_view(octogen, octogen.listed, project=PROJECT, principal=PRINCIPAL)
    assert (view.subscriber, view.was_registered) == (ME, True)
    assert [each.catalog_key for each in view.listings] == ["acme"]
    assert octogen.calls == ["subscribers"]


@pytest.mark.parametrize("register", [True, False])
def test_a_missing_subscriber_is_registered_only_if_wanted(register: bool) -> None:
    octogen = Octogen([listing("acme")], OTHERS, [cell_of("s-8", listing("acme"), "active", None)])
    octogen.after_registration = [cell("acme")]
    view = read_subscriber_view(
        octogen, octogen.listed, project=PROJECT, principal=PRINCIPAL, register=register
    )
    assert view.was_registered is False
    assert view.subscriber == (ME if register else None)
    assert [each.status for each in view.listings] == [
        "awaiting_subscription" if register else None
    ]
    assert (f"register {PROJECT} {PRINCIPAL}" in octogen.calls) == register
