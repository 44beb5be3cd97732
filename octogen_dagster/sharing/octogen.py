"""Octogen's offers to a subscriber, and the action for each offer."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from octogen_dagster.control_plane.tools import Cell, SharedListing
from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryInputError
from octogen_dagster.sharing.hub import Listing, Listings, in_order
from octogen_dagster.sharing.names import ListingKey, ListingName

if TYPE_CHECKING:
    from octogen_dagster.control_plane.tools import OctogenMCP, Subscriber

NOT_GRANTED = (
    "Octogen has not granted a catalog with this key to your organization. Check the key, or ask "
    "Octogen for access."
)
_CATALOG_OF_LISTING = re.compile(r"catalog_(.+)_exported_product_view_v\d+")


class Action(StrEnum):
    """A planned or completed action for an offer."""

    ALREADY_ACTIVE = "already_active"
    ALREADY_SUBSCRIBED = "already_subscribed"
    SUBSCRIBED = "subscribed"
    WOULD_SUBSCRIBE = "would_subscribe"
    PENDING = "pending"
    SKIPPED = "skipped"
    ERROR = "error"


_ACTIONS = {
    "awaiting_subscription": Action.WOULD_SUBSCRIBE,
    "active": Action.ALREADY_ACTIVE,
    "source_stale": Action.ALREADY_ACTIVE,
    "refresh_failed": Action.ERROR,
    "access_grant_failed": Action.ERROR,
    "needs_attention": Action.ERROR,
    "catalog_not_enabled": Action.SKIPPED,
    "scope_revoked": Action.SKIPPED,
    "removing": Action.SKIPPED,
    "preparing": Action.PENDING,
    "pending": Action.PENDING,
}
"""The action for each status or reason code.

If an offer's status and reason code are both listed, the earlier entry determines the action.
"""

LAPSED = _ACTIONS.keys() - {"awaiting_subscription", "active"}
"""The statuses and reason codes of a broken subscription."""


def action_of(word: str | None) -> Action:
    """Return the action for a status. A missing or unknown status counts as pending."""
    return _ACTIONS.get(word or "", Action.PENDING)


def deciding_word(offer: Cell) -> str | None:
    """Return the status or reason code that determines the action for an offer."""
    status, reason = offer.status, offer.reason_code
    if action_of(status) in (Action.WOULD_SUBSCRIBE, Action.ALREADY_ACTIVE):
        return status
    if action_of(reason) in (Action.ERROR, Action.SKIPPED):
        return next(word for word in _ACTIONS if word in (status, reason))
    return status


class Offers(NamedTuple):
    """Octogen's offers to one subscriber, sorted by catalog key and resource name.

    An offer combines a shared listing with its status for the subscriber (`Cell`). If there is no
    status, the offer has no `subscriber_id`.
    """

    subscriber: Subscriber | None  # None if the subscriber is not registered
    was_registered: bool  # before the offers were read
    offers: list[Cell]

    def of(self, listing: ListingName, dataset_id: str | None = None) -> Cell:
        """Return the offer for a listing. The arguments replace its listing name and dataset id.

        If `dataset_id` is None, the offer's dataset id is kept.
        """
        offer = next(each for each in self.offers if _key(each.listing_resource) == listing.key)
        dataset_id = dataset_id or offer.linked_dataset
        return msgspec.structs.replace(
            offer, listing_resource=str(listing), linked_dataset=dataset_id
        )


def read_catalog_of(octogen: OctogenMCP, listing: ListingName) -> list[SharedListing]:
    """Read all shared listings that belong to the same catalog as `listing`.

    Raise an error if `listing` is not shared.
    """
    # Today the id contains the catalog key. Otherwise, read all listings.
    named = _CATALOG_OF_LISTING.fullmatch(listing.listing)
    for catalogs in ([named[1]], []) if named else ([],):
        shared = octogen.listings(catalogs)
        for each in shared:
            if _key(each.listing_resource) == listing.key:
                return [other for other in shared if other.catalog_key == each.catalog_key]
    raise OctogenBigQueryError(
        f"Octogen no longer shares listing {listing} with your organization. No existing "
        "dataset was changed. Ask Octogen for access, or delete the partition."
    )


def read_offers(
    octogen: OctogenMCP,
    shared: Sequence[SharedListing],
    project: str,
    principal: str,
    catalogs: Sequence[str] = (),
    *,
    register: bool = False,
) -> Offers:
    """Read Octogen's offers to one subscriber.

    If `register` is true, a new subscriber is registered first. If `catalogs` is empty, the offers
    for all catalogs are returned. For a catalog that Octogen does not share, the offer has no
    listing.
    """
    subscribers, cells = octogen.subscribers()
    me = project, principal
    subscriber = next((each for each in subscribers if (each.project, each.principal) == me), None)
    was_registered = subscriber is not None
    if subscriber is None and register:
        subscriber, cells = octogen.register(project, principal)
    own = [each for each in cells if subscriber and each.subscriber_id == subscriber.subscriber_id]
    offers = _merged(shared, own)
    if catalogs:
        offers = [each for each in offers if each.catalog_key in catalogs]
        found = {each.catalog_key for each in offers}
        offers += [Cell(key) for key in dict.fromkeys(catalogs) if key not in found]
    offers.sort(key=lambda each: (each.catalog_key or "", each.listing_resource or ""))
    return Offers(subscriber, was_registered, offers)


def _merged(shared: Sequence[SharedListing], cells: Iterable[Cell]) -> list[Cell]:
    """Join listings with status cells. Listings and cells without a match are kept.

    A cell matches the listing with the same name. If there is no such listing, the cell matches a
    listing for the same catalog, unless that listing already has a cell.
    """
    names = {_key(each.listing_resource) for each in shared if each.listing_resource}
    by_name: defaultdict[ListingKey | str, list[Cell]] = defaultdict(list)
    by_catalog: defaultdict[str | None, list[Cell]] = defaultdict(list)
    for cell in cells:
        name = _key(cell.listing_resource)
        if name in names:
            by_name[name].append(cell)
        else:
            by_catalog[cell.catalog_key].append(cell)
    offers = []
    for listed in shared:
        own = by_name[_key(listed.listing_resource)]
        if not own and listed.catalog_key:
            own = by_catalog[listed.catalog_key]
        cell = own.pop(0) if own else Cell()
        filled = {
            name: getattr(cell, name) or getattr(listed, name)
            for name in SharedListing.__struct_fields__
        }
        filled["listing_resource"] = listed.listing_resource
        offers.append(msgspec.structs.replace(cell, **filled))
    return [*offers, *chain(*by_name.values(), *by_catalog.values())]


def _key(resource: str | None) -> ListingKey | str:
    """Return a listing's key. If `resource` is not a listing name, return the text unchanged."""
    try:
        return ListingName.parse(resource or "").key
    except OctogenBigQueryInputError:
        return resource or ""


def octogen_listings(
    octogen: OctogenMCP, *, project: str, principal: str, catalogs: Sequence[str] = ()
) -> Listings:
    """Return the listings that Octogen shares, with their status for one subscriber."""
    shared = octogen.listings(catalogs)
    found = read_offers(octogen, shared, project, principal)
    resources = {each.listing_resource for each in shared}
    listings, left_out = [], []
    for offer in found.offers:
        if offer.listing_resource not in resources:
            continue
        try:
            name = ListingName.parse(offer.listing_resource or "")
        except OctogenBigQueryInputError as error:
            left_out.append(f"Catalog {offer.catalog_key}: {error}")
        else:
            listings.append(
                Listing(name, (deciding_word(offer) or "") if found.subscriber else None)
            )
    granted = {each.catalog_key for each in shared}
    left_out += [f"Catalog {key}: {NOT_GRANTED}" for key in catalogs if key not in granted]
    return Listings(in_order(listings), left_out)


def decide(offer: Cell, subscriber: Subscriber | None) -> tuple[Action, str | None]:
    """Return the action for an offer, and a message that explains the action.

    The action is `WOULD_SUBSCRIBE` if Octogen is waiting for the subscription.
    """
    if offer.catalog_key is None:
        return Action.SKIPPED, "Octogen's offer has no catalog key. Report this to Octogen."
    if offer.subscriber_id is None and offer.listing_resource is None:
        return Action.ERROR, NOT_GRANTED
    if subscriber is None:
        return Action.PENDING, (
            "The subscriber is not registered. Run the command with --apply to register the "
            "subscriber. After Octogen has granted access, run the command again to subscribe."
        )
    if not subscriber.is_enabled:
        state = subscriber.desired_state
        return Action.PENDING, (
            f"Octogen reports the state {state} for this subscriber. Enable the subscriber."
        )
    if offer.subscriber_id is None:
        return Action.PENDING, "Octogen reports no status for this subscriber yet."
    return _decide_by_word(offer)


def _decide_by_word(offer: Cell) -> tuple[Action, str | None]:
    word = deciding_word(offer)
    action = action_of(word)
    if action is Action.WOULD_SUBSCRIBE and offer.listing_resource is None:
        return Action.ERROR, (
            "Octogen has granted access, but its offer has no listing. Report this to Octogen."
        )
    detail = "" if word is None or word in _ACTIONS else f": its status is {word!r}"
    return action, {
        Action.WOULD_SUBSCRIBE: "Run the command with --apply to create the linked dataset.",
        Action.PENDING: f"Octogen has not granted access yet{detail}.",
        Action.ERROR: f"Octogen reports {word}. Ask Octogen for help.",
        Action.SKIPPED: f"Octogen does not share this listing ({word}).",
    }.get(action)
