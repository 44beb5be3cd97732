"""Find the subscriptions that are not in order, by Analytics Hub's state and Octogen's status."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from octogen_dagster.bigquery.listing_tick import MISSING, REVOKED, STALE
from octogen_dagster.sharing import hub as analytics_hub
from octogen_dagster.sharing.hub import AnalyticsHub, Listing
from octogen_dagster.sharing.names import ListingName
from octogen_dagster.sharing.octogen import denies_access

_ONLY_BY_OCTOGEN = {"source_stale", "refresh_failed", "access_grant_failed"}
_LAPSES = {analytics_hub.STALE: STALE, analytics_hub.REVOKED: REVOKED}

_States = Mapping[tuple[str, str, str], list[str]]
"""The states of a listing's subscriptions, by the listing's key."""


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
    names = {key: listing.name for key, listing in subscribed.items()}
    states = _states(hub, project, {name.location.lower() for name in names.values()})
    lapses = {key: _lapse(name, states) for key, name in names.items()}
    return {key: lapse for key, lapse in lapses.items() if lapse is not None}


def _states(hub: AnalyticsHub, project: str, locations: Iterable[str]) -> _States:
    states: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for location in locations:
        for subscription in hub.list_subscriptions(project, location):
            states[subscription.listing.key].append(subscription.state)
    return states


def _lapse(listing: ListingName, states: _States) -> str | None:
    """Why a listing's subscription is not in order, or None if one is.

    A stale one comes before a revoked one: it still gives access.
    """
    found: Collection[str | None] = {_LAPSES.get(state) for state in states.get(listing.key, ())}
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
