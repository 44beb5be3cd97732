"""What Octogen offers a subscriber: listings with a status, and what each status means."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from octogen_dagster.errors import OctogenBigQueryInputError, OctogenError
from octogen_dagster.sharing.hub import Listing, Listings, in_order
from octogen_dagster.sharing.names import ListingKey, ListingName

if sys.version_info >= (3, 11):
    from enum import StrEnum
else:
    from backports.strenum import StrEnum

if TYPE_CHECKING:
    from octogen_dagster.control_plane.tools import Cell, OctogenMCP, SharedListing, Subscriber

GRANTED = "awaiting_subscription"
_PENDING = {"preparing", "pending"}
_ACTIVE = {"active", "source_stale"}
_FAILED = {"refresh_failed", "access_grant_failed", "needs_attention"}
_WITHDRAWN = {"catalog_not_enabled", "scope_revoked", "removing"}

NOT_GRANTED = (
    "Octogen has not granted a catalog of this key to your organisation: check the key, or ask "
    "Octogen for it."
)


class Standing(StrEnum):
    """What Octogen's status and reason code mean together."""

    PENDING = "pending"
    GRANTED = "granted"
    ACTIVE = "active"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


def standing(status: str | None, reason_code: str | None = None) -> Standing:
    """What a status means. One that is missing or not known means that it is pending."""
    if status == GRANTED:
        return Standing.GRANTED
    if status in _ACTIVE:
        return Standing.ACTIVE
    words = {status, reason_code}
    if words & _FAILED:
        return Standing.FAILED
    return Standing.WITHDRAWN if words & _WITHDRAWN else Standing.PENDING


def denies_access(status: str | None) -> bool:
    """True if a status says that access is not granted, in a word that is known."""
    return status in _PENDING | _WITHDRAWN


@dataclass(frozen=True, slots=True)
class Offer:
    """A listing as Octogen offers it to one subscriber; what Octogen did not send is None."""

    catalog_key: str | None
    listing_resource: str | None = None
    dataset_id: str | None = None  # the one that Octogen suggests
    location: str | None = None
    sample_query: str | None = None
    cell: Cell | None = None  # what Octogen keeps of it for this subscriber

    @property
    def status(self) -> str | None:
        """Octogen's status."""
        return self.cell.status if self.cell else None

    @property
    def reason_code(self) -> str | None:
        """Octogen's reason for the status."""
        return self.cell.reason_code if self.cell else None

    @property
    def decisive_status(self) -> str | None:
        """The status, or the reason code if only that tells that it is not just pending."""
        alone, both = standing(self.status), standing(self.status, self.reason_code)
        return self.status if alone is both else self.reason_code


def is_named(listing: ListingName, resource: str | None) -> bool:
    """True if a text is the listing's name, whose project has an id and a number."""
    return _name(resource) == listing.key


@dataclass(frozen=True, slots=True)
class Offers:
    """What Octogen offers one subscriber, ordered by catalog key and resource name."""

    subscriber: Subscriber | None  # None if it is not registered
    was_registered: bool  # before the offers were read
    offers: list[Offer]


def read_offers(
    octogen: OctogenMCP,
    shared: Sequence[SharedListing],
    *,
    project: str,
    principal: str,
    catalogs: Sequence[str] = (),
    register: bool = False,
) -> Offers:
    """Read the status of shared listings for one subscriber, who may be registered for that.

    Without `catalogs` they are those of all. A key that Octogen does not share is included without
    a listing.
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
        offers += [Offer(key) for key in dict.fromkeys(catalogs) if key not in found]
    offers.sort(key=lambda each: (each.catalog_key or "", each.listing_resource or ""))
    return Offers(subscriber, was_registered, offers)


def _merged(shared: Iterable[SharedListing], cells: Iterable[Cell]) -> list[Offer]:
    """Each listing with its cell, and each cell without a listing: none is left out.

    A cell belongs to the listing that it names. One that names none of these belongs to a listing
    of its catalog that has no other cell.
    """
    offers = [_offer(each) for each in shared]
    by_name: defaultdict[ListingKey | str, list[int]] = defaultdict(list)
    by_catalog: defaultdict[str | None, list[int]] = defaultdict(list)
    for index, offer in enumerate(offers):
        if offer.listing_resource:
            by_name[_name(offer.listing_resource)].append(index)
        by_catalog[offer.catalog_key].append(index)
    for cell in sorted(cells, key=lambda each: _name(each.listing_resource) not in by_name):
        own = _offer(cell)
        indexes = by_name.get(_name(own.listing_resource))
        if indexes is None:
            indexes = by_catalog[own.catalog_key] if own.catalog_key else []
        free = [index for index in indexes if offers[index].cell is None]
        if not free:
            offers.append(replace(own, cell=cell))
            continue
        listed = offers[free[0]]
        offers[free[0]] = Offer(
            catalog_key=own.catalog_key or listed.catalog_key,
            listing_resource=listed.listing_resource,
            dataset_id=own.dataset_id or listed.dataset_id,
            location=own.location or listed.location,
            sample_query=own.sample_query or listed.sample_query,
            cell=cell,
        )
    return offers


def _name(resource: str | None) -> ListingKey | str:
    """What identifies a listing, or the text if it is not a listing's name."""
    try:
        return ListingName.parse(resource or "").key
    except OctogenBigQueryInputError:
        return resource or ""


def _offer(listing: SharedListing) -> Offer:
    return Offer(
        catalog_key=listing.catalog_key,
        listing_resource=listing.listing_resource,
        dataset_id=listing.linked_dataset,
        location=listing.location,
        sample_query=listing.sample_query,
    )


def octogen_listings(
    octogen: OctogenMCP, *, project: str, principal: str, catalogs: Sequence[str] = ()
) -> Listings:
    """The listings that Octogen shares, with their status for one subscriber."""
    shared = octogen.listings(catalogs)
    found = read_offers(octogen, shared, project=project, principal=principal)
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
            status = (offer.decisive_status or "") if found.subscriber else None
            listings.append(Listing(name, status))
    granted = {each.catalog_key for each in shared}
    left_out += [f"Catalog {key}: {NOT_GRANTED}" for key in catalogs if key not in granted]
    return Listings(in_order(listings), left_out)


class Action(StrEnum):
    """What is to be done about an offer, or what a pass did about it."""

    ALREADY_ACTIVE = "already_active"
    ALREADY_SUBSCRIBED = "already_subscribed"
    SUBSCRIBED = "subscribed"
    WOULD_SUBSCRIBE = "would_subscribe"
    PENDING = "pending"
    SKIPPED = "skipped"
    ERROR = "error"


def decide(offer: Offer, subscriber: Subscriber | None) -> tuple[Action, str | None]:
    """Decide about an offer, and say why: `WOULD_SUBSCRIBE` if it waits for a subscription."""
    if offer.catalog_key is None:
        return Action.SKIPPED, "Octogen sent it without a catalog key: report it to Octogen."
    if offer.cell is None and offer.listing_resource is None:
        return Action.ERROR, NOT_GRANTED
    if subscriber is None:
        return Action.PENDING, (
            "The subscriber is not registered: a pass with --apply registers it, and a later one "
            "subscribes, once Octogen has granted access."
        )
    if not is_enabled(subscriber):
        state = subscriber.desired_state
        return Action.PENDING, f"The subscriber is {state} at Octogen: enable it there."
    if offer.cell is None:
        return Action.PENDING, "Octogen has no status for this subscriber yet."
    return _decide_by_status(offer)


def _decide_by_status(offer: Offer) -> tuple[Action, str | None]:
    status, reason = offer.status, offer.reason_code
    match standing(status, reason):
        case Standing.ACTIVE:
            return Action.ALREADY_ACTIVE, None
        case Standing.GRANTED if offer.listing_resource is None:
            return Action.ERROR, "Octogen grants access and names no listing: report it to Octogen."
        case Standing.GRANTED:
            return Action.WOULD_SUBSCRIBE, "A pass with --apply creates the linked dataset."
        case Standing.FAILED:
            return Action.ERROR, f"Octogen reports {reason or status}: ask Octogen."
        case Standing.WITHDRAWN:
            return Action.SKIPPED, f"Octogen does not share it ({reason or status})."
    detail = "" if status is None or denies_access(status) else f": its status is {status!r}"
    return Action.PENDING, f"Octogen has not granted access yet{detail}."


def is_enabled(subscriber: Subscriber) -> bool:
    """True if Octogen serves the subscriber."""
    return subscriber.desired_state in (None, "enabled")


def confirm(octogen: OctogenMCP, offer: Offer, principal: str) -> tuple[Cell | None, str | None]:
    """Let Octogen look at a subscription again, and return its cell, or the problem if it fails."""
    try:
        cell = octogen.refresh_status(
            offer.catalog_key or "",
            principal,
            share_schema=offer.cell.share_schema if offer.cell else None,
            schema_version=offer.cell.schema_version if offer.cell else None,
        )
    except OctogenError as error:
        return None, f"It is subscribed, but Octogen did not look again: {error}"
    return cell, None
