"""The checks of Analytics Hub: subscriptions, listings and the exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octogen_dagster.doctor.findings import Finding
from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryInputError
from octogen_dagster.sharing.names import TABLE, ListingName, plan_subscription
from octogen_dagster.sharing.subscribe import in_force

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from octogen_dagster.background import Deadline
    from octogen_dagster.bigquery.resources import AnalyticsHubResource
    from octogen_dagster.sharing.hub import AnalyticsHub, Subscription

SUBSCRIPTIONS, LISTINGS, EXCHANGE = "Subscriptions", "Listings", "Exchange"
_DEFAULT_LOCATION = "US"
_MAX_LISTINGS = 100
_MAX_NAMES = 3
_MAX_FAILURES = 3
"""Listings that cannot be looked at mostly have one cause, such as an API that is disabled."""

_GRANT = (
    "Octogen grants roles/analyticshub.subscriber on a listing to the registered principal, within "
    "minutes. If it does not, check that these Google credentials are that principal's."
)


def check_analytics_hub(
    analytics_hub: AnalyticsHubResource,
    named: Sequence[str],
    shared: Sequence[str],
    exchange: str | None,
    timeout: float,
    *,
    within: Deadline | None = None,
) -> Generator[Finding, None, Sequence[str]]:
    """Check that subscriptions and listings can be read and listings be subscribed to.

    Args:
        analytics_hub: The resource.
        named: Resource names of listings that the user named; one that may not be subscribed to
            is a failure.
        shared: Those that Octogen shares; their grants may still be on the way.
        exchange: The exchange whose listings are to be read; None for none.
        timeout: Seconds for each call.
        within: The time for all calls.

    Returns:
        The linked tables that there are, as `project.dataset.table`.

    Raises:
        OctogenBigQueryError: Analytics Hub refuses.
    """
    project = analytics_hub.project
    resources, malformed = _checked([*named, *shared])
    yield from malformed
    looked_at = _Listings({name.strip() for name in named})
    with analytics_hub.hub(timeout, within=within) as hub:
        if exchange is not None:
            yield _exchange_finding(hub, exchange)
        locations = {ListingName.parse(resource).location for resource in resources}
        subscriptions: list[Subscription] = []
        for location in sorted(locations or {_DEFAULT_LOCATION}):
            yield _subscriptions_finding(hub, project, location, subscriptions)
        left = list(resources)
        failures = 0
        while left and len(resources) - len(left) < _MAX_LISTINGS and failures < _MAX_FAILURES:
            try:
                looked_at.add(left.pop(0), project, hub, subscriptions)
            except OctogenBigQueryError as error:
                failures += 1
                yield Finding(LISTINGS, "failed", str(error))
    yield from looked_at.findings()
    if not resources:
        yield Finding(LISTINGS, "skipped", "none is named, and Octogen's MCP names none.")
    if left:
        yield Finding(LISTINGS, "skipped", f"not looked at: {len(left):,} more.")
    return looked_at.tables


def _checked(resources: Sequence[str]) -> tuple[list[str], list[Finding]]:
    """The names of listings, each once, and a finding for each that is malformed."""
    checked: list[str] = []
    findings: list[Finding] = []
    for resource in dict.fromkeys(resources):
        try:
            checked.append(str(ListingName.parse(resource)))
        except OctogenBigQueryInputError as error:
            findings.append(Finding(LISTINGS, "failed", str(error)))
    return checked, findings


def _exchange_finding(hub: AnalyticsHub, exchange: str) -> Finding:
    try:
        found = hub.list_listings(exchange)
    except OctogenBigQueryError as error:
        return Finding(EXCHANGE, "failed", str(error))
    return Finding(EXCHANGE, "ok", f"catalogs in {exchange}: {len(found.listings):,}.")


def _subscriptions_finding(
    hub: AnalyticsHub, project: str, location: str, subscriptions: list[Subscription]
) -> Finding:
    """Read the subscriptions of a location, and add them to those that are known."""
    try:
        found = hub.list_subscriptions(project, location)
    except OctogenBigQueryError as error:
        return Finding(SUBSCRIPTIONS, "failed", str(error))
    subscriptions += found
    said = f"project {project} has {len(found):,} in location {location}."
    return Finding(SUBSCRIPTIONS, "ok", said)


class _Listings:
    """Listings by what can be done with them.

    Args:
        named: Those that the user named.
    """

    def __init__(self, named: set[str]) -> None:
        self._named = named
        self._granted: list[str] = []
        self._refused: list[str] = []
        self._pending: list[str] = []
        self.tables: list[str] = []

    def add(
        self, resource: str, project: str, hub: AnalyticsHub, subscriptions: Sequence[Subscription]
    ) -> None:
        """Ask Analytics Hub about a listing.

        Raises:
            OctogenBigQueryError: It does not tell.
        """
        plan = plan_subscription(resource, project)
        existing = in_force(subscriptions, plan)
        if existing is not None:
            dataset = f"{existing.project or project}.{existing.dataset_id or plan.dataset_id}"
            self.tables.append(f"{dataset}.{TABLE}")
        elif hub.may_subscribe(plan.listing):
            self._granted.append(resource)
        else:
            (self._refused if resource in self._named else self._pending).append(resource)

    def findings(self) -> Iterator[Finding]:
        """Report each kind of listings that there is."""
        if self.tables:
            said = f"subscribed to {len(self.tables):,}: {_names(self.tables)}."
            yield Finding(LISTINGS, "ok", said)
        if self._granted:
            said = f"free to subscribe to {len(self._granted):,}: {_names(self._granted)}."
            yield Finding(LISTINGS, "ok", said)
        if self._refused:
            yield Finding(LISTINGS, "failed", _not_granted(self._refused), _GRANT)
        if self._pending:
            yield Finding(LISTINGS, "warning", _not_granted(self._pending), _GRANT)


def _not_granted(resources: Sequence[str]) -> str:
    return (
        f"not granted (analyticshub.listings.subscribe) are {len(resources):,}: "
        f"{_names(resources)}."
    )


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES:,} more" if names[_MAX_NAMES:] else ""
    return ", ".join(names[:_MAX_NAMES]) + more
