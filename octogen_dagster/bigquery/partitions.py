"""Partition keys and subscription states of Analytics Hub listings.

A listing's partition key is `<project>:<location>:<exchange>:<listing>`. The key is parsed from the
right, because a project id can contain a colon.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing.hub import REVOKED, Listing, Subscription
from octogen_dagster.sharing.names import ListingKey, ListingName

if TYPE_CHECKING:
    from octogen_dagster.background import Deadline

listing_partitions = dg.DynamicPartitionsDefinition(name="octogen_listings")
"""Analytics Hub listings to subscribe to. Each listing is a partition."""


def listing_partition_key(resource: str) -> str:
    """Return a listing's partition key.

    Args:
        resource: `projects/<project>/locations/<location>/dataExchanges/<exchange>/listings/<id>`.

    Raises:
        OctogenBigQueryInputError: `resource` is not a listing name.
    """
    name = ListingName.parse(resource)
    return f"{name.project}:{name.location}:{name.exchange}:{name.listing}"


def listing_of(partition_key: str) -> str:
    """Convert a listing's partition key to the listing's resource name.

    Args:
        partition_key: A key from `listing_partition_key`. Its project id can contain a colon.

    Raises:
        OctogenBigQueryInputError: The key is not a listing's partition key.
    """
    return str(listing_name(partition_key))


def listing_name(partition_key: str) -> ListingName:
    """Parse a listing's partition key."""
    parts = partition_key.rsplit(":", 3)
    try:
        return ListingName.parse(str(ListingName(*parts)))
    except (TypeError, OctogenBigQueryInputError):
        raise OctogenBigQueryInputError(
            f"Partition {partition_key!r} is not a listing. Delete the partition, and add it again "
            "in the form <project>:<location>:<exchange>:<listing>."
        ) from None


def by_partition_key(
    listings: Iterable[Listing], known: Collection[str]
) -> tuple[dict[str, Listing], list[str]]:
    """Return the listings by partition key, and the keys in `known` that are not listings.

    If a listing's key differs from a known key only in the project's id or number, the known key is
    used.
    """
    partitions: dict[ListingKey, str] = {}
    invalid = []
    for key in sorted(known):
        name = known_name(key)
        if name is None:
            invalid.append(key)
        else:
            partitions.setdefault(name.key, key)
    exists, by_key = set(known), {}
    for listing in listings:
        key = listing_partition_key(str(listing.name))
        by_key[key if key in exists else partitions.get(listing.name.key, key)] = listing
    return by_key, invalid


def known_name(key: str) -> ListingName | None:
    """Parse a partition key, or return None if it is not a listing's partition key."""
    try:
        return listing_name(key)
    except OctogenBigQueryInputError:
        return None


def read_states(
    analytics_hub: Any, names: Iterable[ListingName], within: Deadline
) -> dict[ListingKey, set[str]]:
    """Return the states of the project's subscriptions, grouped by listing.

    Subscriptions in locations without a listing in `names` are not read.
    """
    found: list[Subscription] = []
    with analytics_hub.hub(within=within) as hub:
        for location in sorted({name.location.lower() for name in names}):
            found += hub.list_subscriptions(analytics_hub.project, location)
    states: dict[ListingKey, set[str]] = {}
    for subscription in found:
        states.setdefault(subscription.listing.key, set()).add(subscription.state)
    return states


def is_revoked(states: Mapping[ListingKey, Collection[str]], listing: ListingName) -> bool:
    """Return True if a listing has one or more subscriptions, all of them revoked."""
    return set(states.get(listing.key, ())) == {REVOKED}
