"""Which subscriptions are not in order: by Analytics Hub, and by Octogen."""

from collections import defaultdict
from collections.abc import Mapping

from octogen_dagster.bigquery.listing_tick import MISSING, PENDING, REVOKED, STALE
from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing import subscription as subscription_entry
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from octogen_dagster.sharing.listings import Listing
from octogen_dagster.sharing.resource_names import ListingName

_ONLY_BY_OCTOGEN = {"source_stale", "refresh_failed", "access_grant_failed"}
_LAPSES = {subscription_entry.STALE: STALE, subscription_entry.REVOKED: REVOKED}


def by_analytics_hub(
    hub: AnalyticsHub, project: str, subscribed: Mapping[str, Listing]
) -> dict[str, str]:
    """Which subscriptions of a project are revoked, stale or missing.

    A state that is newer than this package is none of these, and nor is one that may be another
    listing's, whose project is named the other way.

    Args:
        hub: Analytics Hub.
        project: The subscriber's project.
        subscribed: The listings that it subscribed to, by partition key.

    Raises:
        OctogenBigQueryError: Analytics Hub does not say.
    """
    names = {key: ListingName.parse(listing.resource) for key, listing in subscribed.items()}
    states: defaultdict[tuple[str, str, str], list[tuple[ListingName, str]]] = defaultdict(list)
    for location in {name.location.lower() for name in names.values()}:
        for subscription in hub.subscription_messages(project, location):
            try:
                name = ListingName.parse(subscription.listing)
            except OctogenBigQueryInputError:  # to a whole exchange
                continue
            state = subscription_entry.state_name(subscription.state)
            states[name.without_project].append((name, state))
    lapses = {}
    for key, mine in names.items():
        found = {
            _LAPSES.get(state)
            for name, state in states[mine.without_project]
            if mine.matches(name) is not False
        }
        if None not in found:
            lapses[key] = next((lapse for lapse in (STALE, REVOKED) if lapse in found), MISSING)
    return lapses


def merge_octogen_status(
    lapses: Mapping[str, str], subscribed: Mapping[str, Listing]
) -> dict[str, str]:
    """The lapses, with what Octogen says where Analytics Hub said nothing.

    Args:
        lapses: Those of Analytics Hub, or what is remembered of both, by partition key.
        subscribed: The listings that were subscribed to, by partition key.
    """
    both = dict(lapses)
    for key, listing in subscribed.items():
        if key in both and both[key] not in _ONLY_BY_OCTOGEN:
            continue  # Analytics Hub knows better
        if listing.status in _ONLY_BY_OCTOGEN:
            both[key] = listing.status
        elif listing.status == PENDING:
            both[key] = REVOKED
        elif listing.status == "active":
            both.pop(key, None)
    return both
