"""Find the subscriptions that are not in order, by Analytics Hub's state and Octogen's status."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from octogen_dagster.bigquery.listing_tick import MISSING, REVOKED, STALE
from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing import subscription as subscription_entry
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from octogen_dagster.sharing.listings import Listing
from octogen_dagster.sharing.resource_names import ListingName
from octogen_dagster.sharing.status import denies_access

_ONLY_BY_OCTOGEN = {"source_stale", "refresh_failed", "access_grant_failed"}
_LAPSES = {subscription_entry.STALE: STALE, subscription_entry.REVOKED: REVOKED}

_States = Mapping[tuple[str, str, str], list[tuple[ListingName, str]]]
"""Listings and their subscription's state, by what a listing's name is without its project."""


def by_analytics_hub(
    hub: AnalyticsHub, project: str, subscribed: Mapping[str, Listing]
) -> dict[str, str]:
    """List the subscriptions of a project and find those that are revoked, stale or missing.

    A subscription in a state that is newer than this package counts as in order. So does a listing
    if a subscription in order may be its own but names the project the other way.

    Args:
        hub: Analytics Hub.
        project: The subscriber's project.
        subscribed: The listings that the project subscribed to, by partition key.

    Returns:
        `revoked`, `stale` or `missing` by partition key, for those that are not in order.

    Raises:
        OctogenBigQueryError: Analytics Hub does not list them.
    """
    names = {key: ListingName.parse(listing.resource) for key, listing in subscribed.items()}
    states = _states(hub, project, {name.location.lower() for name in names.values()})
    lapses = {key: _lapse(name, states) for key, name in names.items()}
    return {key: lapse for key, lapse in lapses.items() if lapse is not None}


def _states(hub: AnalyticsHub, project: str, locations: Iterable[str]) -> _States:
    states: defaultdict[tuple[str, str, str], list[tuple[ListingName, str]]] = defaultdict(list)
    for location in locations:
        for subscription in hub.subscription_messages(project, location):
            try:
                name = ListingName.parse(subscription.listing)
            except OctogenBigQueryInputError:  # a subscription to a whole exchange
                continue
            state = subscription_entry.state_name(subscription.state)
            states[name.without_project].append((name, state))
    return states


def _lapse(listing: ListingName, states: _States) -> str | None:
    """Why a listing's subscription is not in order, or None if one is.

    A stale one comes before a revoked one: it still gives access.
    """
    found: Collection[str | None] = {
        _LAPSES.get(state)
        for name, state in states.get(listing.without_project, ())
        if listing.matches(name) is not False
    }
    if None in found:
        return None
    return next((lapse for lapse in (STALE, REVOKED) if lapse in found), MISSING)


def merge_octogen_status(
    lapses: Mapping[str, str], subscribed: Mapping[str, Listing]
) -> dict[str, str]:
    """Add Octogen's status where Analytics Hub reported nothing.

    Args:
        lapses: The lapses by Analytics Hub, or those remembered of both, by partition key.
        subscribed: The listings that were subscribed to, by partition key.

    Returns:
        The state by partition key, for those that are not in order.
    """
    merged = dict(lapses)
    for key, listing in subscribed.items():
        if key in merged and merged[key] not in _ONLY_BY_OCTOGEN:
            continue  # Analytics Hub knows better
        if listing.status in _ONLY_BY_OCTOGEN:
            merged[key] = listing.status
        elif denies_access(listing.status):
            merged[key] = REVOKED
        elif listing.status == "active":
            merged.pop(key, None)
    return merged
